package dev.millrace.inference.engine;

import dev.millrace.inference.api.FinishReason;
import dev.millrace.inference.api.GenerateEvent;
import dev.millrace.inference.api.SamplingParams;
import dev.millrace.inference.api.Scheduling;
import dev.millrace.inference.api.TokenLogprob;
import java.lang.management.ManagementFactory;
import java.util.Arrays;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * Host time of a step with 1,024 running sequences, by the number that wait; the runner costs
 * nothing. Run by hand: {@code java -cp … dev.millrace.inference.engine.EngineHostBenchmark}.
 */
final class EngineHostBenchmark {
  private static final int RUNNING = 1024;
  private static final int STEPS = 5000;

  private EngineHostBenchmark() {}

  public static void main(String[] args) {
    System.out.println("waiting  context  step µs: median   p99    max   bytes/step");
    measure(1, 100, false); // warm-up, not shown
    for (int context : new int[] {100, 4000}) {
      for (int waiting : new int[] {1, 100, 10_000, 100_000}) {
        measure(waiting, context, true);
      }
    }
    churn(false);
    churn(true);
  }

  /** Nothing but decode: all run to the end of the measurement, and the rest wait. */
  private static void measure(int waiting, int context, boolean shown) {
    Engine engine = engine();
    for (int i = 0; i < RUNNING + waiting; i++) {
      engine.submit(request(i, context, 20_000), SILENT);
    }
    while (engine.stats().generated() < RUNNING * 200L || engine.stats().running() < RUNNING) {
      engine.round();
    }
    report("%7d  %7d".formatted(waiting, context), engine, shown);
  }

  /** 100 tokens each, so that about ten sequences end and ten are admitted in each step. */
  private static void churn(boolean shown) {
    Engine engine = engine();
    for (int i = 0; i < 100_000; i++) {
      engine.submit(request(i, 64, 50 + i % 100), SILENT);
    }
    while (engine.stats().generated() < RUNNING * 200L) {
      engine.round();
    }
    report("100,000 short ones coming and going", engine, shown);
  }

  private static void report(String label, Engine engine, boolean shown) {
    var threads = (com.sun.management.ThreadMXBean) ManagementFactory.getThreadMXBean();
    long allocated = threads.getCurrentThreadAllocatedBytes();
    long[] nanos = new long[STEPS];
    for (int i = 0; i < STEPS; i++) {
      long start = System.nanoTime();
      engine.round();
      nanos[i] = System.nanoTime() - start;
    }
    allocated = threads.getCurrentThreadAllocatedBytes() - allocated;
    Arrays.sort(nanos);
    if (shown) {
      System.out.printf(
          "%s         %8.1f %6.1f %6.1f   %6d%n",
          label,
          nanos[STEPS / 2] / 1e3,
          nanos[STEPS * 99 / 100] / 1e3,
          nanos[STEPS - 1] / 1e3,
          allocated / STEPS);
    }
  }

  private static Engine engine() {
    EngineConfig config =
        EngineConfig.defaults().withMaxSequences(RUNNING).withTokenBudget(RUNNING * 8);
    Runner.Info info = new Runner.Info(128_256, 131_072, 16, RUNNING * 2000, 2);
    return new Engine(new ConstantRunner(info), config, false);
  }

  private static TokenRequest request(int index, int promptLength, int maxTokens) {
    int[] prompt = new int[promptLength];
    Arrays.setAll(prompt, i -> (index * 31 + i * 7) % 128_000);
    SamplingParams sampling =
        new SamplingParams(0, 1, 0, 0, 1, 0, 0, 0, maxTokens, 0, List.of(), true, -1);
    return new TokenRequest(
        "r", prompt, new int[0], sampling, new int[] {128_001}, Scheduling.of(index % 3));
  }

  private static final TokenListener SILENT =
      new TokenListener() {
        @Override
        public void onStarted(int cachedTokens) {}

        @Override
        public void onToken(int token, @Nullable TokenLogprob logprob) {}

        @Override
        public void onFinished(FinishReason reason) {}

        @Override
        public void onFailed(GenerateEvent.Failure failure, String message) {}
      };
}
