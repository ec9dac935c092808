package dev.millrace.inference.engine;

import static org.assertj.core.api.Assertions.assertThat;

import dev.millrace.inference.api.FinishReason;
import dev.millrace.inference.api.SamplingParams;
import dev.millrace.inference.api.TokenLogprob;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** What goes wrong in a step, in a listener or at the end, and whom it harms. */
@Timeout(60)
class EngineFailuresTest extends EngineFixture {
  @Test
  void shouldGoOnWhenAListenerThrows() {
    try (Engine engine = new Engine(runner, config)) {
      CountDownLatch ended = new CountDownLatch(1);
      List<Integer> heard = new ArrayList<>();
      engine.submit(
          request(greedy(5, true), 3),
          new Recorder() {
            @Override
            public void onStarted(int cachedTokens) {
              throw new IllegalStateException("thrown by a test's listener");
            }

            @Override
            public void onToken(int token, @Nullable TokenLogprob logprob) {
              heard.add(token);
              throw new AssertionError("thrown by a test's listener");
            }

            @Override
            public void onFinished(FinishReason reason) {
              ended.countDown();
              throw new IllegalStateException("thrown by a test's listener");
            }
          });
      Recorder other = new Recorder();
      engine.submit(request(greedy(20, true), 4), other);
      assertThat(other.end.join()).isEqualTo("LENGTH");
      assertThat(other.tokens).isEqualTo(model(20, 4));
      assertThat(ended.getCount()).isZero();
      assertThat(heard).isEqualTo(model(5, 3));
    }
  }

  @Test
  void shouldFailEverythingAfterAFatalFailure() {
    try (Engine engine = new Engine(runner, config)) {
      List<Recorder> recorders = new ArrayList<>();
      CountDownLatch started = new CountDownLatch(1);
      Recorder first =
          new Recorder() {
            @Override
            public void onToken(int token, @Nullable TokenLogprob logprob) {
              super.onToken(token, logprob);
              runner.dying = true;
              started.countDown();
            }
          };
      recorders.add(first);
      engine.submit(request(greedy(1000, true), 3), first);
      started.await();
      for (int i = 0; i < 30; i++) {
        recorders.add(new Recorder());
        engine.submit(request(greedy(1000, true), 3), recorders.getLast());
      }
      for (Recorder recorder : recorders) {
        assertThat(recorder.end.join()).isEqualTo("failed ENGINE");
        assertThat(recorder.message).isEqualTo("the device failed: injected");
      }
      assertThat(engine.stats().failure()).isEqualTo("the device failed: injected");
    } catch (InterruptedException e) {
      throw new AssertionError(e);
    }
  }

  @Test
  void shouldFailEverythingWhenTheRunnerThrowsAnError() {
    runner.refusing =
        batch -> {
          throw new LinkageError("no such kernel");
        };
    try (Engine engine = new Engine(runner, config)) {
      Recorder recorder = new Recorder();
      engine.submit(request(greedy(10, true), 3), recorder);
      assertThat(recorder.end.join()).isEqualTo("failed ENGINE");
      assertThat(engine.stats().failure()).contains("no such kernel");
    }
  }

  @Test
  void shouldSurviveFailedStepsWithTheSameTokens() {
    Random random = new Random(5);
    runner.failing = batch -> batch.sequences > 1 && random.nextInt(4) == 0;
    try (Engine engine = new Engine(runner, config)) {
      List<Recorder> recorders = new ArrayList<>();
      for (int i = 0; i < 20; i++) {
        recorders.add(new Recorder());
        engine.submit(request(greedy(25, true), 3, 2 + i), recorders.getLast());
      }
      for (int i = 0; i < 20; i++) {
        assertThat(recorders.get(i).end.join()).isEqualTo("LENGTH");
        assertThat(recorders.get(i).tokens).isEqualTo(model(25, 3, 2 + i));
      }
    }
  }

  @Test
  void shouldGiveUpOnlyTheSequenceThatBreaksItsSteps() {
    use(new Runner.Info(VOCAB, 200, 4, 128, 2), config);
    Engine engine = driven(config);
    List<Recorder> recorders = new ArrayList<>();
    for (int i = 0; i < 8; i++) {
      recorders.add(new Recorder());
      int[] prompt = i == 5 ? new int[] {7, HashRunner.POISON} : new int[] {7, 8, 2 + i};
      engine.submit(request(greedy(40, true), prompt), recorders.getLast());
    }
    int rounds = 0;
    while (engine.round()) {
      rounds++;
    }
    for (int i = 0; i < 8; i++) {
      if (i == 5) {
        assertThat(recorders.get(i).outcome()).isEqualTo("failed ENGINE");
        assertThat(recorders.get(i).message)
            .startsWith("3 steps failed in which it was alone; the last: ")
            .contains("injected");
      } else {
        assertThat(recorders.get(i).outcome()).isEqualTo("LENGTH");
        assertThat(recorders.get(i).tokens).isEqualTo(model(40, 7, 8, 2 + i));
      }
    }
    assertThat(rounds).as("rounds, of which 40 with no failure").isLessThan(40 + 30);
  }

  @Test
  void shouldTrustSuspectsAgainOnceTheyArePastTheStepThatFailed() {
    use(new Runner.Info(VOCAB, 200, 4, 512, 2), config.withPrefixCache(false));
    AtomicInteger steps = new AtomicInteger();
    runner.failing = batch -> steps.incrementAndGet() == 20;
    Engine engine = driven(config);
    List<Recorder> recorders = new ArrayList<>();
    for (int i = 0; i < 8; i++) {
      recorders.add(new Recorder());
      engine.submit(request(greedy(150, true), 7, 8, 2 + i), recorders.getLast());
    }
    int rounds = 0;
    while (engine.round()) {
      rounds++;
    }
    for (int i = 0; i < 8; i++) {
      assertThat(recorders.get(i).tokens).isEqualTo(model(150, 7, 8, 2 + i));
    }
    assertThat(rounds).as("rounds, of which 150 with no failure").isLessThan(150 + 60);
  }

  @Test
  void shouldGiveEverythingUpWhenEveryStepFails() {
    runner.failing = batch -> true;
    Engine engine = driven(config);
    List<Recorder> recorders = new ArrayList<>();
    for (int i = 0; i < 50; i++) {
      recorders.add(new Recorder());
      engine.submit(request(greedy(40, true), 3, 2 + i), recorders.getLast());
    }
    int rounds = 0;
    while (engine.round()) {
      rounds++;
    }
    assertThat(recorders).allMatch(r -> "failed ENGINE".equals(r.outcome()));
    assertThat(rounds).isLessThan(50 * 2 * (config.stepAttempts() + 2));
    assertThat(engine.stats().failure()).isNull();
  }

  @Test
  void shouldEndEverythingWithClosed() {
    Engine engine = new Engine(runner, config);
    List<Recorder> recorders = new ArrayList<>();
    for (int i = 0; i < 200; i++) {
      recorders.add(new Recorder());
      engine.submit(request(greedy(190, true), 3), recorders.getLast());
    }
    engine.close();
    runner.close();
    Recorder late = new Recorder();
    Engine.Handle handle = engine.submit(request(greedy(1, true), 3), late);
    recorders.add(late);
    engine.abort(handle);
    engine.close();
    assertThat(recorders)
        .allMatch(r -> "failed CLOSED".equals(r.outcome()) || "LENGTH".equals(r.outcome()));
    assertThat(late.outcome()).isEqualTo("failed CLOSED");
    assertThat(runner.closed).isTrue();
    assertThat(engine.stats().waiting()).isZero();
  }

  @Test
  void shouldBeClosableByAListener() throws InterruptedException {
    Engine engine = new Engine(runner, config);
    Recorder recorder =
        new Recorder() {
          @Override
          public void onStarted(int cachedTokens) {
            super.onStarted(cachedTokens);
            engine.close();
          }
        };
    engine.submit(request(greedy(190, true), 3), recorder);
    assertThat(recorder.end.join()).isEqualTo("failed CLOSED");
    engine.close();
    runner.close();
  }

  @Test
  void shouldLoseNoneOfThoseSubmittedWhileItCloses() throws InterruptedException {
    for (int i = 0; i < 50; i++) {
      Engine engine = new Engine(runner, config);
      List<Recorder> recorders = new ArrayList<>();
      Thread submitter =
          Thread.ofPlatform()
              .start(
                  () -> {
                    for (int j = 0; j < 300; j++) {
                      recorders.add(new Recorder());
                      engine.submit(request(greedy(1, true), 3), recorders.getLast());
                    }
                  });
      engine.close();
      submitter.join();
      for (Recorder recorder : recorders) {
        assertThat(recorder.end.orTimeout(10, TimeUnit.SECONDS).join())
            .isIn("failed CLOSED", "LENGTH");
      }
    }
  }

  @Test
  void shouldKeepNothingOfASequenceWhoseStepsFailed() {
    Engine engine = driven(config.withStepAttempts(1));
    int[] prompt = prompt(12, 3);
    runner.failing = batch -> batch.contextLength[0] > 14;
    Recorder first = new Recorder();
    engine.submit(request(greedy(9, true), prompt), first);
    rounds(engine, 20);
    assertThat(first.outcome()).isEqualTo("failed ENGINE");
    runner.failing = batch -> false;
    Recorder second = new Recorder();
    engine.submit(request(greedy(9, true), prompt), second);
    rounds(engine, 20);
    assertThat(second.cached).isZero();
    assertThat(second.tokens).hasSize(9);
  }

  @Test
  void shouldFailOnlyTheSequenceWhoseLogitsAreNoNumbers() {
    SamplingParams sick = new SamplingParams(0, 1, 0, 0, 1, 0, 0, 3, 100, 0, List.of(), true, -1);
    Engine engine = driven(config);
    Recorder first = new Recorder();
    Recorder other = new Recorder();
    Recorder second = new Recorder();
    engine.submit(request(sick, prompt(12, 3)), first);
    engine.submit(request(greedy(40, true), 3), other);
    rounds(engine, 150);
    engine.submit(request(sick, prompt(12, 3)), second);
    rounds(engine, 150);
    assertThat(first.outcome()).isEqualTo("failed ENGINE");
    assertThat(first.message)
        .isEqualTo("the model's logits are no numbers at position " + (12 + first.tokens.size()));
    assertThat(other.tokens).isEqualTo(model(40, 3));
    assertThat(second.cached).as("nothing of it is kept").isZero();
    assertThat(second.tokens).isEqualTo(first.tokens);
    assertThat(engine.stats().failure()).isNull();
  }
}
