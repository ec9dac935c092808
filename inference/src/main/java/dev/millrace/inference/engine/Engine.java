package dev.millrace.inference.engine;

import dev.millrace.inference.api.FinishReason;
import dev.millrace.inference.api.GenerateEvent.Failure;
import dev.millrace.inference.api.Generator;
import dev.millrace.inference.api.TokenLogprob;
import java.util.Queue;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.locks.LockSupport;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Runs many sequences at once on a {@link Runner}, on one thread of its own. Whoever made it closes
 * it, and then the runner.
 *
 * <p>With a runner of depth 2 a step is planned and submitted while the one before it still runs;
 * its tokens come from there on the device. What a step computed for a sequence that turns out to
 * have ended is dropped.
 *
 * <p>A failed step harms no sequence but one that fails alone, again and again ({@link Scheduler}
 * says how): its members are computed anew from their known tokens, to the same tokens. After a
 * fatal failure every sequence fails with {@link Failure#ENGINE}, those submitted later too.
 */
public final class Engine implements AutoCloseable {
  private static final Logger log = LoggerFactory.getLogger(Engine.class);

  /** New sequences taken in between two steps: a burst must not hold up those that run. */
  private static final int INTAKE = 1024;

  private static final long HEARTBEAT_NANOS = 500_000_000;

  private static final String CLOSED = "the engine is closed";

  /** A submitted sequence, to {@link #abort} it by. */
  public sealed interface Handle permits Sequence {}

  /**
   * What the engine has done since it began; subtract two for what lies between.
   *
   * @param steps that ended
   * @param tokens computed in them, of prompts and answers
   * @param members sequences in them, summed over the steps
   * @param hostNanos of the engine's thread on bookkeeping
   * @param awaitNanos of the engine's thread waiting for steps
   * @param emptyNanos in which no step was in flight although there was work
   */
  public record Work(
      long steps, long tokens, long members, long hostNanos, long awaitNanos, long emptyNanos) {}

  private final Runner runner;
  private final Runner.Info info;
  private final RequestCheck requests;
  private final BlockManager blocks;
  private final Lanes lanes;
  private final Scheduler scheduler;
  private final WorkClock clock = new WorkClock();

  /** One more than may be in flight, used in turn; [oldest, next) are in flight. */
  private final Step[] steps;

  private long oldest;
  private long next;
  private long generated;

  private boolean deviceLost;

  /** From any thread to the engine thread. */
  private final Queue<Sequence> inbox = new ConcurrentLinkedQueue<>();

  private final Queue<Sequence> aborts = new ConcurrentLinkedQueue<>();

  private final Thread thread;
  private volatile boolean parked;

  /** Somebody was allowed more tokens since the last round began. */
  private volatile boolean moreAllowed;

  private volatile boolean closing;
  private volatile boolean terminated;
  private volatile @Nullable String failure;

  private final EngineStats stats = new EngineStats();
  private long failed;

  /**
   * Starts the engine's thread.
   *
   * @throws IllegalArgumentException if the runner has no KV blocks or another depth than 1 or 2
   */
  public Engine(Runner runner, EngineConfig config) {
    this(runner, config, true);
  }

  /** Not started it is driven by {@link #round}, for tests. */
  Engine(Runner runner, EngineConfig config, boolean start) {
    this.runner = runner;
    this.info = check(runner.info());
    this.requests = new RequestCheck(info);
    this.blocks = new BlockManager(info.blocks(), info.blockSize(), config.prefixCache());
    this.lanes = new Lanes(config.maxSequences(), info.blockSize());
    this.scheduler = new Scheduler(config, blocks, lanes);
    this.steps = new Step[info.depth() + 1];
    for (int i = 0; i < steps.length; i++) {
      steps[i] = new Step(lanes, config.maxSequences(), config.tokenBudget(), info.blockSize());
    }
    this.thread = Thread.ofPlatform().name("millrace-engine").daemon().unstarted(this::run);
    if (start) {
      thread.start();
    }
  }

  /**
   * Takes a sequence. Never blocks; any number may wait. A request that cannot be served ends in
   * {@link TokenListener#onFailed}. Thread-safe.
   */
  public Handle submit(TokenRequest request, TokenListener listener) {
    Sequence sequence =
        new Sequence(this, request, listener, requests.maxContext(), requests.rejection(request));
    listener.onSubmitted(sequence);
    stats.submitted(sequence);
    inbox.add(sequence);
    wake();
    if (terminated) {
      // The thread may have gone before it saw this one; the queue hands each out once.
      endInbox(Failure.CLOSED, CLOSED);
    }
    return sequence;
  }

  /**
   * Ends a sequence with {@link FinishReason#CANCELLED}; nothing happens if it has ended already.
   * Thread-safe, returns at once.
   *
   * @throws IllegalArgumentException if another engine made the handle
   */
  public void abort(Handle handle) {
    Sequence sequence = own(handle);
    if (!terminated) {
      aborts.add(sequence);
      wake();
    }
  }

  /**
   * Lets a sequence come to so many generated tokens, resumed ones included: see {@link
   * dev.millrace.inference.api.Scheduling}. Thread-safe, returns at once.
   *
   * @throws IllegalArgumentException if another engine made the handle
   */
  public void allow(Handle handle, int tokens) {
    Sequence sequence = own(handle);
    sequence.allow(tokens);
    moreAllowed = true;
    wake();
  }

  private Sequence own(Handle handle) {
    Sequence sequence = (Sequence) handle;
    if (sequence.engine != this) {
      throw new IllegalArgumentException("another engine runs " + sequence.request.id());
    }
    return sequence;
  }

  /** A snapshot, of after the last step. Thread-safe. */
  public Generator.Status stats() {
    return stats.status(failure);
  }

  /** Where the time has gone so far, as of the last step. Thread-safe. */
  public Work work() {
    return clock.read();
  }

  /** Sums of after the last step. Thread-safe. */
  public Generator.Counters counters() {
    return stats.counters(work());
  }

  /**
   * Most tokens of a sequence, prompt and output: the model's context or what the KV blocks hold.
   */
  public int maxContext() {
    return requests.maxContext();
  }

  /**
   * Ends all sequences with {@link Failure#CLOSED}, waits for the steps in flight and stops the
   * thread. Called on the engine thread (by a listener) it returns before that.
   */
  @Override
  public void close() {
    closing = true;
    LockSupport.unpark(thread);
    boolean interrupted = false;
    while (Thread.currentThread() != thread && thread.isAlive()) {
      try {
        thread.join();
      } catch (InterruptedException e) {
        // The runner may be closed only when no step is in flight any more.
        interrupted = true;
      }
    }
    if (interrupted) {
      Thread.currentThread().interrupt();
    }
  }

  private void run() {
    while (!closing) {
      if (!round()) {
        idle();
      }
    }
    endAll(Failure.CLOSED, CLOSED);
    awaitAll();
    publish();
    terminated = true;
    endInbox(Failure.CLOSED, CLOSED);
  }

  /** Takes in what came and makes a step. Returns false if there was nothing to do. */
  boolean round() {
    try {
      clock.roundBegins();
      moreAllowed = false;
      takeAborts();
      takeInbox();
      boolean worked = failure == null && step();
      if (worked) {
        clock.roundEnds();
      }
      publish();
      return worked;
    } catch (Throwable e) {
      // A bug here, or the JVM is out of memory: no bookkeeping can be trusted any more.
      fail("the engine failed: " + e, e);
      return true;
    }
  }

  private boolean step() {
    Step planned = schedule();
    if (planned != null) {
      submit(planned);
    }
    boolean full = next - oldest == info.depth();
    Step ended = oldest < next && (full || planned == null) ? step(oldest) : null;
    if (ended != null) {
      StepHandle.Result sampled = await(ended);
      if (sampled != null) {
        update(ended, sampled);
      }
    }
    return planned != null || ended != null;
  }

  private @Nullable Step schedule() {
    Step step = step(next);
    step.clear(next);
    scheduler.plan(step);
    return step.size() > 0 ? step : null;
  }

  private void submit(Step step) {
    if (oldest == next) {
      // Else the first step after a long rest would look like one that hangs.
      stats.alive();
    }
    try {
      step.handle = runner.submit(step.batch);
      next++;
      clock.submitted();
    } catch (RuntimeException e) {
      stepFailed(step, e);
    }
    step.tellBeginners();
  }

  private StepHandle.@Nullable Result await(Step step) {
    oldest++;
    clock.awaitBegins();
    try {
      StepHandle.Result sampled = step.handle().await();
      clock.ended(step);
      return sampled;
    } catch (StepFailedException e) {
      if (e.fatal()) {
        deviceLost = true;
        fail("the device failed: " + e.getMessage(), e);
      } else {
        stepFailed(step, e);
      }
    } catch (RuntimeException e) {
      stepFailed(step, e);
    } finally {
      clock.awaitEnds(next - oldest);
    }
    return null;
  }

  private void update(Step step, StepHandle.Result sampled) {
    scheduler.computed(step);
    step.glimpse();
    int[] tokens = sampled.tokens();
    @Nullable TokenLogprob[] logprobs = sampled.logprobs();
    for (int i = 0; i < step.size(); i++) {
      int row = step.row(i);
      if (row >= 0 && step.valid(i)) {
        accept(step.lane(i), tokens[row], logprobs[row]);
      }
    }
    stats.alive();
  }

  private void accept(int lane, int token, @Nullable TokenLogprob logprob) {
    if (token < 0 || token >= info.vocabSize()) {
      Sequence sequence = lanes.sequence(lane);
      scheduler.forget(sequence);
      end(sequence, Failure.ENGINE, badToken(sequence, token));
    } else if (lanes.stopsAt(lane, token)) {
      end(lanes.sequence(lane), FinishReason.STOP);
    } else {
      lanes.append(lane, token);
      generated++;
      try {
        lanes.listener(lane).onToken(token, logprob);
      } catch (Throwable e) {
        lanes.sequence(lane).listenerThrew(e);
      }
      if (lanes.known[lane] >= lanes.limit[lane]) {
        end(lanes.sequence(lane), FinishReason.LENGTH);
      }
    }
  }

  private String badToken(Sequence sequence, int token) {
    String position = " at position " + sequence.length();
    return token < 0
        ? "the model's logits are no numbers" + position
        : "the runner sampled token " + token + position + ", beyond the vocabulary";
  }

  private void stepFailed(Step step, Exception cause) {
    failed++;
    log.warn("A step of {} sequences failed; they are computed again", step.size(), cause);
    Sequence convicted = scheduler.failed(step);
    if (convicted != null) {
      end(
          convicted,
          Failure.ENGINE,
          convicted.attempts + " steps failed in which it was alone; the last: " + cause);
    }
    stats.alive();
  }

  private void takeAborts() {
    for (Sequence sequence = aborts.poll(); sequence != null; sequence = aborts.poll()) {
      if (sequence.state != Sequence.State.ENDED) {
        end(sequence, FinishReason.CANCELLED);
      }
    }
  }

  private void takeInbox() {
    for (int i = 0; i < INTAKE; i++) {
      Sequence sequence = inbox.poll();
      if (sequence == null) {
        return;
      }
      stats.taken(sequence);
      Sequence.Rejection rejection = sequence.rejection;
      String failed = failure;
      if (sequence.state == Sequence.State.ENDED) {
        continue; // aborted
      } else if (rejection != null) {
        end(sequence, rejection.failure(), rejection.message());
      } else if (failed != null) {
        end(sequence, Failure.ENGINE, failed);
      } else if (sequence.complete()) {
        end(sequence, FinishReason.LENGTH);
      } else {
        scheduler.add(sequence);
      }
    }
  }

  private void end(Sequence sequence, FinishReason reason) {
    scheduler.remove(sequence, reason == FinishReason.STOP);
    sequence.tellFinished(reason);
  }

  private void end(Sequence sequence, Failure reason, String message) {
    scheduler.remove(sequence, false);
    sequence.tellFailed(reason, message);
  }

  private void fail(String message, Throwable cause) {
    log.error("No sequence can succeed any more: {}", message, cause);
    failure = message;
    endAll(Failure.ENGINE, message);
  }

  /** Ends what the scheduler holds, without its bookkeeping, which is not used any more. */
  private void endAll(Failure reason, String message) {
    for (Sequence sequence : scheduler.drain()) {
      sequence.ended();
      sequence.tellFailed(reason, message);
    }
  }

  private void endInbox(Failure reason, String message) {
    for (Sequence sequence = inbox.poll(); sequence != null; sequence = inbox.poll()) {
      stats.dropped(sequence);
      if (sequence.state != Sequence.State.ENDED) {
        sequence.ended();
        sequence.tellFailed(reason, message);
      }
    }
  }

  private void awaitAll() {
    // A lost device may never answer.
    while (oldest < next && !deviceLost) {
      try {
        step(oldest++).handle().await();
      } catch (StepFailedException | RuntimeException e) {
        log.debug("A step failed while the engine closed", e);
      }
    }
  }

  private void publish() {
    double used = (double) (info.blocks() - blocks.free()) / info.blocks();
    stats.publish(scheduler, used, generated, failed);
  }

  private void idle() {
    parked = true;
    if (inbox.isEmpty() && aborts.isEmpty() && !moreAllowed && !closing) {
      LockSupport.parkNanos(this, HEARTBEAT_NANOS);
    }
    parked = false;
    clock.rests();
    if (stats.nothingToDo()) {
      stats.alive();
    }
  }

  private void wake() {
    if (parked) {
      LockSupport.unpark(thread);
    }
  }

  Scheduler scheduler() {
    return scheduler;
  }

  Lanes lanes() {
    return lanes;
  }

  BlockManager blocks() {
    return blocks;
  }

  private Step step(long number) {
    return steps[(int) (number % steps.length)];
  }

  /**
   * What to say of a prompt that has {@link #maxContext} tokens or more.
   *
   * @param length how many it has
   */
  public String tooLong(String length) {
    return requests.tooLong(length);
  }

  private static Runner.Info check(Runner.Info info) {
    if (info.blocks() < 1 || info.blockSize() < 1 || info.depth() < 1 || info.depth() > 2) {
      throw new IllegalArgumentException(
          "a runner needs KV blocks of one token or more, and a depth of 1 or 2: " + info);
    }
    return info;
  }
}
