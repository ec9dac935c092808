package dev.millrace.inference.pipeline;

import dev.millrace.inference.api.TokenLogprob;
import dev.millrace.inference.engine.Batch;
import dev.millrace.inference.engine.Runner;
import dev.millrace.inference.engine.StepFailedException;
import dev.millrace.inference.engine.StepHandle;
import dev.millrace.inference.sampling.SamplingState;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Semaphore;
import org.jspecify.annotations.Nullable;

/**
 * A model that says what it was told to: the script that a request's seed names, then its stop
 * token, or the script again and again.
 */
final class ScriptRunner implements Runner {
  private final Info info;
  private final int stop;
  private final Map<Long, int[]> scripts = new ConcurrentHashMap<>();
  private final Map<Long, int[]> prompts = new ConcurrentHashMap<>();
  private volatile @Nullable Semaphore steps;
  volatile boolean endless;
  volatile boolean failing;
  volatile boolean closed;
  volatile int mostGenerated;

  ScriptRunner(int vocabSize, int maxContext, int stop) {
    this.info = new Info(vocabSize, maxContext, 16, 4096, 1);
    this.stop = stop;
  }

  void script(long seed, int[] tokens) {
    scripts.put(seed, tokens);
  }

  /** The prompt of the request with this seed; empty before its first step. */
  int[] prompt(long seed) {
    return prompts.getOrDefault(seed, new int[0]);
  }

  /** From now on each step waits for a permit. */
  Semaphore hold() {
    Semaphore permits = new Semaphore(0);
    steps = permits;
    return permits;
  }

  /** Steps wait no more, so that whatever a test left running can end. */
  void letGo() {
    Semaphore permits = steps;
    if (permits != null) {
      permits.release(1_000_000);
    }
  }

  @Override
  public Info info() {
    return info;
  }

  @Override
  public StepHandle submit(Batch batch) {
    int rows = batch.logitCount;
    List<SamplingState> states = new ArrayList<>();
    for (int row = 0; row < rows; row++) {
      states.add(batch.sampling[row]);
    }
    return () -> {
      Semaphore permits = steps;
      if (permits != null) {
        permits.acquireUninterruptibly();
      }
      if (failing) {
        throw new StepFailedException("injected", new RuntimeException("cause"), true);
      }
      int[] tokens = new int[rows];
      @Nullable TokenLogprob[] logprobs = new @Nullable TokenLogprob[rows];
      for (int row = 0; row < rows; row++) {
        tokens[row] = next(states.get(row));
        states.get(row).append(tokens[row]);
        if (states.get(row).params().logprobs() >= 0) {
          logprobs[row] = new TokenLogprob(tokens[row], -0.5f, new int[0], new float[0]);
        }
      }
      return new StepHandle.Result(tokens, logprobs);
    };
  }

  private int next(SamplingState state) {
    long seed = state.params().seed();
    int[] prompt = new int[state.promptLength()];
    for (int i = 0; i < prompt.length; i++) {
      prompt[i] = state.token(i);
    }
    prompts.put(seed, prompt);
    int[] script = scripts.getOrDefault(seed, new int[0]);
    int at = state.generated();
    mostGenerated = Math.max(mostGenerated, at);
    if (endless && script.length > 0) {
      return script[at % script.length];
    }
    return at < script.length ? script[at] : stop;
  }

  @Override
  public void close() {
    closed = true;
  }
}
