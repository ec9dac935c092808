package dev.millrace.topology;

import static org.assertj.core.api.Assertions.assertThat;

import dev.millrace.inference.api.FinishReason;
import dev.millrace.inference.api.GenerateEvent.Failure;
import dev.millrace.inference.api.SamplingParams;
import dev.millrace.inference.api.Scheduling;
import dev.millrace.inference.api.TokenLogprob;
import dev.millrace.inference.engine.Batch;
import dev.millrace.inference.engine.Engine;
import dev.millrace.inference.engine.EngineConfig;
import dev.millrace.inference.engine.Runner;
import dev.millrace.inference.engine.StepHandle;
import dev.millrace.inference.engine.TokenListener;
import dev.millrace.inference.engine.TokenRequest;
import dev.millrace.topology.WorkerHealth.Situation;
import dev.millrace.topology.WorkerHealth.Streams;
import java.time.Duration;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** What a worker says of itself while a step of a real engine does not come back. */
@Timeout(60)
class EngineHangTest {
  private static final Situation RUNNING = new Situation(Worker.State.RUNNING, null, false);
  private static final Duration STUCK_AFTER = Duration.ofMinutes(2);

  /** Its steps end when the test says so. */
  private static final class HangingRunner implements Runner {
    final CountDownLatch submitted = new CountDownLatch(1);
    final CountDownLatch free = new CountDownLatch(1);

    @Override
    public Info info() {
      return new Info(100, 200, 4, 64, 1);
    }

    @Override
    public StepHandle submit(Batch batch) {
      submitted.countDown();
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

  private static final class End implements TokenListener {
    final CompletableFuture<String> came = new CompletableFuture<>();

    @Override
    public void onStarted(int cachedTokens) {}

    @Override
    public void onToken(int token, @Nullable TokenLogprob logprob) {}

    @Override
    public void onFinished(FinishReason reason) {
      came.complete(reason.name());
    }

    @Override
    public void onFailed(Failure failure, String message) {
      came.complete(message);
    }
  }

  @Test
  void shouldNotBeLiveWhileAStepOfTheEngineHangs() throws Exception {
    HangingRunner runner = new HangingRunner();
    AtomicLong later = new AtomicLong();
    EngineConfig config = EngineConfig.defaults().withMaxSequences(8).withTokenBudget(32);
    try (Engine engine = new Engine(runner, config)) {
      WorkerHealth health =
          new WorkerHealth(
              STUCK_AFTER,
              () -> System.nanoTime() + later.get(),
              engine::stats,
              () -> new Streams(true, 1, 0));
      End end = new End();
      try {
        engine.submit(
            new TokenRequest(
                "r",
                new int[] {3, 4, 5},
                new int[0],
                SamplingParams.greedy(2),
                new int[0],
                Scheduling.ANY),
            end);
        assertThat(runner.submitted.await(30, TimeUnit.SECONDS)).isTrue();
        long lastStep = engine.stats().lastStepNanos();
        assertThat(health.live(RUNNING).good()).as("a step may take its time").isTrue();
        // Longer than the engine's heartbeat.
        TimeUnit.MILLISECONDS.sleep(700);
        assertThat(engine.stats().lastStepNanos()).as("no step has ended").isEqualTo(lastStep);

        later.set(STUCK_AFTER.toNanos());
        assertThat(health.live(RUNNING).good()).isFalse();
        assertThat(health.live(RUNNING).reason())
            .contains("the engine has not come on for 120 s, and has 1 prompts");
      } finally {
        // Closing waits for the step.
        runner.free.countDown();
      }
      assertThat(end.came.join()).isEqualTo("LENGTH");
      later.set(0);
      assertThat(health.live(RUNNING).good()).as("it has come on").isTrue();
    }
  }
}
