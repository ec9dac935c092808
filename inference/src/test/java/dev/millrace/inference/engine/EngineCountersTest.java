package dev.millrace.inference.engine;

import static org.assertj.core.api.Assertions.assertThat;

import dev.millrace.inference.api.Generator;
import dev.millrace.inference.api.SamplingParams;
import dev.millrace.inference.api.Scheduling;
import dev.millrace.inference.api.TokenLogprob;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** What the engine counts and says of its steps, with a runner that the test holds back. */
@Timeout(60)
class EngineCountersTest {
  private static final EngineConfig CONFIG =
      EngineConfig.defaults().withMaxSequences(8).withTokenBudget(32);

  /** Fails its first step, then waits until it may answer. */
  private static final class HeldRunner implements Runner {
    final CountDownLatch free = new CountDownLatch(1);
    volatile boolean failed;

    @Override
    public Info info() {
      return new Info(100, 200, 4, 64, 1);
    }

    @Override
    public StepHandle submit(Batch batch) {
      if (!failed) {
        failed = true;
        throw new IllegalStateException("the first step fails");
      }
      int rows = batch.logitCount;
      return () -> {
        try {
          free.await();
        } catch (InterruptedException e) {
          Thread.currentThread().interrupt();
        }
        return new StepHandle.Result(new int[rows], new @Nullable TokenLogprob[rows]);
      };
    }

    @Override
    public void close() {}
  }

  private static TokenRequest request(int prompt, int tokens) {
    return new TokenRequest(
        "r",
        new int[prompt],
        new int[0],
        SamplingParams.greedy(tokens),
        new int[0],
        Scheduling.ANY);
  }

  @Test
  void shouldCountStepsAndShowOneThatHangs() throws Exception {
    HeldRunner runner = new HeldRunner();
    try (Engine engine = new Engine(runner, CONFIG)) {
      assertThat(engine.counters()).isEqualTo(new Generator.Counters(0, 0, 0, 0, 0));
      Recorder recorder = new Recorder();
      engine.submit(request(10, 3), recorder);
      try {
        while (engine.counters().failedSteps() == 0) {
          TimeUnit.MILLISECONDS.sleep(1);
        }
        TimeUnit.MILLISECONDS.sleep(100);
        Generator.Status hangs = engine.stats();
        TimeUnit.MILLISECONDS.sleep(700);
        assertThat(engine.stats().lastStepNanos())
            .as("no step has ended")
            .isEqualTo(hangs.lastStepNanos());
        assertThat(hangs.running() + hangs.waiting()).as("work").isEqualTo(1);
      } finally {
        // Closing waits for the step.
        runner.free.countDown();
      }
      assertThat(recorder.end.join()).isEqualTo("LENGTH");
      while (engine.counters().steps() < 3) {
        TimeUnit.MILLISECONDS.sleep(1);
      }
      // The prompt and one token, then a token, then a token: the last one's keys nobody needs.
      assertThat(engine.counters()).isEqualTo(new Generator.Counters(3, 12, 3, 1, 1));
      long rests = engine.stats().lastStepNanos();
      TimeUnit.MILLISECONDS.sleep(700);
      assertThat(engine.stats().lastStepNanos()).as("nothing to do").isGreaterThan(rests);
    }
  }
}
