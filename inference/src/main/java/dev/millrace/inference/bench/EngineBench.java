package dev.millrace.inference.bench;

import dev.millrace.inference.api.FinishReason;
import dev.millrace.inference.api.GenerateEvent;
import dev.millrace.inference.api.Scheduling;
import dev.millrace.inference.api.TokenLogprob;
import dev.millrace.inference.engine.Engine;
import dev.millrace.inference.engine.EngineConfig;
import dev.millrace.inference.engine.TokenListener;
import dev.millrace.inference.engine.TokenRequest;
import dev.millrace.inference.model.ModelRunner;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.Semaphore;
import org.jspecify.annotations.Nullable;

/**
 * Serves a {@link Load} on an engine of its own. The runner is the caller's and stays open. For one
 * thread, once.
 */
public final class EngineBench {
  /** Requests that are served before anything is measured, and how long they are at most. */
  private static final int WARM_UP = 2;

  private static final int WARM_UP_TOKENS = 16;

  private static final int MOST_GAPS = 1 << 24;

  private static final TokenListener NOBODY =
      new TokenListener() {
        @Override
        public void onStarted(int cachedTokens) {}

        @Override
        public void onToken(int token, @Nullable TokenLogprob logprob) {}

        @Override
        public void onFinished(FinishReason reason) {}

        @Override
        public void onFailed(GenerateEvent.Failure why, String message) {}
      };

  private final ModelRunner runner;
  private final EngineConfig config;
  private final Load load;
  private final Ceilings ceilings;

  /**
   * @throws IllegalArgumentException if the requests are longer than the model or its KV memory
   *     takes
   */
  public EngineBench(ModelRunner runner, EngineConfig config, Load load, Ceilings ceilings) {
    long length = (long) load.inputTokens() + load.outputTokens();
    if (length > runner.info().maxContext()) {
      throw new IllegalArgumentException(
          "isl and osl are %d tokens together; model and KV memory take %d"
              .formatted(length, runner.info().maxContext()));
    }
    this.runner = runner;
    this.config = config;
    this.load = load;
    this.ceilings = ceilings;
  }

  /**
   * Serves all requests.
   *
   * @throws IllegalStateException if a request fails
   */
  public EngineReport run() throws InterruptedException {
    Meter meter = new Meter(runner, ceilings);
    int vocabSize = runner.info().vocabSize();
    // Made before the clock runs.
    List<TokenRequest> requests = new ArrayList<>();
    for (int i = 0; i < load.requests(); i++) {
      requests.add(load.request(i, vocabSize));
    }
    try (Engine engine = new Engine(meter, config)) {
      warmUp(engine, meter);
      meter.begin();
      Tally tally = new Tally(load, meter);
      Engine.Work before = engine.work();
      long busyBefore = runner.busyNanos();
      long graphsBefore = runner.graphSteps();
      long start = System.nanoTime();
      for (TokenRequest request : requests) {
        tally.slots.acquire();
        engine.submit(request, tally.listener());
      }
      submitWaiting(engine);
      tally.left.await();
      long busy = runner.busyNanos() - busyBefore;
      long graphs = runner.graphSteps() - graphsBefore;
      Engine.Work after = engine.work();
      meter.end();
      engine.close();
      tally.check();
      return report(meter, tally, (tally.lastEnd - start) / 1e9, before, after, busy, graphs);
    }
  }

  private void warmUp(Engine engine, Meter meter) throws InterruptedException {
    Load small =
        new Load(
            WARM_UP,
            0,
            Math.min(load.inputTokens(), WARM_UP_TOKENS),
            Math.min(load.outputTokens(), WARM_UP_TOKENS),
            0,
            ~load.seed());
    Tally tally = new Tally(small, meter);
    for (int i = 0; i < small.requests(); i++) {
      engine.submit(small.request(i, runner.info().vocabSize()), tally.listener());
    }
    tally.left.await();
    tally.check();
  }

  /** They share one prompt, which the engine only reads. */
  private void submitWaiting(Engine engine) {
    if (load.waiting() == 0) {
      return;
    }
    int[] prompt = load.prompt(-1, runner.info().vocabSize());
    for (int i = 0; i < load.waiting(); i++) {
      String id = "waiting-" + i;
      engine.submit(
          new TokenRequest(
              id,
              prompt,
              new int[0],
              load.sampling(),
              new int[0],
              Scheduling.of(Integer.MAX_VALUE)),
          NOBODY);
    }
  }

  private EngineReport report(
      Meter meter,
      Tally tally,
      double seconds,
      Engine.Work before,
      Engine.Work after,
      long busyNanos,
      long graphs) {
    double steps = Math.max(1, after.steps() - before.steps());
    EngineReport.Steps how =
        new EngineReport.Steps(
            after.steps() - before.steps(),
            graphs,
            (after.members() - before.members()) / steps,
            (after.tokens() - before.tokens()) / steps,
            meter.stepTimes(),
            meter.hostTimes(),
            (after.hostNanos() - before.hostNanos()) / steps / 1e6,
            runner.busyNanos() < 0 ? -1 : busyNanos / 1e9 / seconds,
            (after.emptyNanos() - before.emptyNanos()) / 1e9 / seconds);
    double bound = meter.boundSeconds();
    return new EngineReport(
        seconds,
        tally.tokens,
        (long) load.requests() * load.inputTokens(),
        tally.cached,
        tally.firstTokens.summary(),
        tally.gaps.summary(),
        how,
        new EngineReport.Bound(
            ceilings, bound, bound == 0 ? 0 : meter.memoryBoundSeconds() / bound));
  }

  /** What the requests came to; written by the engine's thread, read once all have ended. */
  private static final class Tally {
    final Meter meter;
    final Semaphore slots;
    final CountDownLatch left;
    final Samples firstTokens;
    final Samples gaps;
    long tokens;
    long cached;
    long lastEnd;
    private @Nullable String failure;

    Tally(Load load, Meter meter) {
      this.meter = meter;
      slots = new Semaphore(load.atOnce());
      left = new CountDownLatch(load.requests());
      firstTokens = new Samples(load.requests());
      gaps = new Samples((int) Math.min(MOST_GAPS, (long) load.requests() * load.outputTokens()));
    }

    TokenListener listener() {
      return new Listener(this);
    }

    void check() {
      if (failure != null) {
        throw new IllegalStateException("a request of the benchmark failed: " + failure);
      }
    }
  }

  private static final class Listener implements TokenListener {
    private final Tally tally;
    private final long submitted = System.nanoTime();
    private long last;

    Listener(Tally tally) {
      this.tally = tally;
    }

    @Override
    public void onStarted(int cachedTokens) {
      tally.cached += cachedTokens;
    }

    @Override
    public void onToken(int token, @Nullable TokenLogprob logprob) {
      // Looking at the clock for each token would take more of the engine's thread than the engine.
      long now = tally.meter.stepEnd();
      if (last == 0) {
        tally.firstTokens.add(now - submitted);
      } else {
        tally.gaps.add(now - last);
      }
      last = now;
      tally.tokens++;
    }

    @Override
    public void onFinished(FinishReason reason) {
      ended();
    }

    @Override
    public void onFailed(GenerateEvent.Failure why, String message) {
      tally.failure = why + ": " + message;
      ended();
    }

    private void ended() {
      tally.lastEnd = System.nanoTime();
      tally.slots.release();
      tally.left.countDown();
    }
  }
}
