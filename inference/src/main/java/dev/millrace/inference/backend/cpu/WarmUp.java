package dev.millrace.inference.backend.cpu;

import dev.millrace.inference.api.SamplingParams;
import dev.millrace.inference.engine.Batch;
import dev.millrace.inference.engine.Runner;
import dev.millrace.inference.sampling.SamplingState;
import java.time.Duration;
import java.util.function.Consumer;

/**
 * Steps of every kind on made-up tokens until they no longer get faster: the first requests would
 * otherwise run interpreted, some hundred times slower. What it leaves in the cache is overwritten
 * before anyone reads it.
 */
final class WarmUp {
  private static final int PROMPT = 50;
  private static final long LEAST_NANOS = Duration.ofSeconds(1).toNanos();
  private static final long MOST_NANOS = Duration.ofSeconds(6).toNanos();
  private static final int STEADY_ROUNDS = 8;

  private final Consumer<Batch> runner;
  private final Runner.Info info;

  WarmUp(Runner.Info info, Consumer<Batch> runner) {
    this.info = info;
    this.runner = runner;
  }

  void run() {
    long start = System.nanoTime();
    long best = Long.MAX_VALUE;
    int steady = 0;
    long now = start;
    // A large model is warm after one round, which takes long enough by itself.
    while (now - start < LEAST_NANOS || (steady < STEADY_ROUNDS && now - start < MOST_NANOS)) {
      round();
      long took = System.nanoTime() - now;
      now += took;
      steady = took < best * 0.9 ? 0 : steady + 1;
      best = Math.min(best, took);
    }
  }

  private void round() {
    int prompt = Math.max(1, Math.min(PROMPT, info.maxContext() - 1));
    runner.accept(batch(1, 0, prompt));
    runner.accept(batch(1, prompt, 1));
    runner.accept(batch(3, prompt, 1));
  }

  /** Sequences that all use the first blocks: nobody reads their answers. */
  private Batch batch(int sequences, int computed, int queries) {
    int blocks = Math.ceilDiv(computed + queries, info.blockSize());
    Batch batch = new Batch(sequences, sequences * queries, blocks);
    batch.sequences = sequences;
    batch.tokenCount = sequences * queries;
    batch.logitCount = sequences;
    for (int s = 0; s < sequences; s++) {
      for (int i = 0; i < queries; i++) {
        int t = s * queries + i;
        batch.tokens[t] = t % info.vocabSize();
        batch.tokenFrom[t] = -1;
        batch.positions[t] = computed + i;
        batch.slots[t] = computed + i;
      }
      for (int b = 0; b < blocks; b++) {
        batch.blockTable[s * blocks + b] = b;
      }
      batch.queryStart[s + 1] = (s + 1) * queries;
      batch.contextLength[s] = computed + queries;
      batch.logitRows[s] = (s + 1) * queries - 1;
      batch.sampling[s] =
          new SamplingState(
              SamplingParams.greedy(1), new int[computed + queries], new int[0], new int[0]);
    }
    return batch;
  }
}
