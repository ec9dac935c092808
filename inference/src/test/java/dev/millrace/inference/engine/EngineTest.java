package dev.millrace.inference.engine;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.millrace.inference.api.FinishReason;
import dev.millrace.inference.api.SamplingParams;
import dev.millrace.inference.api.TokenLogprob;
import java.lang.management.ManagementFactory;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.stream.IntStream;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

@Timeout(60)
class EngineTest {
  private static final int VOCAB = 500;

  private EngineConfig config = EngineConfig.defaults().withMaxSequences(8).withTokenBudget(32);
  private Runner.Info info = new Runner.Info(VOCAB, 200, 4, 64, 2);
  private HashRunner runner = new HashRunner(info, config, new Random(1));

  @Test
  void shouldEndWithLengthAfterMaxTokens() {
    try (Engine engine = new Engine(runner, config)) {
      Recorder recorder = new Recorder();
      engine.submit(request(greedy(7, true), 3, 4, 5), recorder);
      assertThat(recorder.end.join()).isEqualTo("LENGTH");
      assertThat(recorder.tokens).isEqualTo(model(7, 3, 4, 5)).hasSize(7);
      assertThat(recorder.cached).isZero();
      assertThat(recorder.broken).isNull();
    }
  }

  @Test
  void shouldEndWithLengthWhereTheContextEnds() {
    int[] prompt = prompt(195, 9);
    assertThat(run(request(greedy(1000, true), prompt))).isEqualTo("LENGTH");
    Recorder recorder = new Recorder();
    runInto(request(greedy(1000, true), prompt), recorder);
    assertThat(recorder.tokens).hasSize(5);
  }

  @Test
  void shouldUseUpTheKvMemoryOfASmallDevice() {
    use(new Runner.Info(VOCAB, 200, 4, 5, 2), config);
    Recorder recorder = new Recorder();
    runInto(request(greedy(1000, true), prompt(10, 1)), recorder);
    // The last token needs no keys and values.
    assertThat(recorder.tokens).hasSize(5 * 4 + 1 - 10);
  }

  @Test
  void shouldNotReportTheStopTokenNorWhatRanPastIt() {
    List<Integer> all = model(100, 3);
    int stop = all.get(40);
    int first = all.indexOf(stop);
    TokenRequest request =
        new TokenRequest("r", new int[] {3}, new int[0], greedy(100, false), new int[] {stop}, 0);
    Recorder recorder = new Recorder();
    assertThat(runInto(request, recorder)).isEqualTo("STOP");
    assertThat(recorder.tokens).isEqualTo(all.subList(0, first));
  }

  @Test
  void shouldGiveTheSameContinuationFromEveryToken() {
    List<Integer> whole = model(30, 8, 9);
    for (int known = 0; known <= 30; known++) {
      int[] resume = whole.stream().limit(known).mapToInt(i -> i).toArray();
      TokenRequest request =
          new TokenRequest("r", new int[] {8, 9}, resume, greedy(30, true), new int[0], 0);
      Recorder recorder = new Recorder();
      assertThat(runInto(request, recorder)).isEqualTo("LENGTH");
      assertThat(recorder.tokens).isEqualTo(whole.subList(known, 30));
      assertThat(resume).as("the request's array").hasSize(known);
    }
  }

  @Test
  void shouldRefuseAnEmptyPrompt() {
    assertRefused(request(greedy(5, true)), "failed INVALID_REQUEST", "the prompt has no tokens");
  }

  @Test
  void shouldRefuseTokensOutsideTheVocabulary() {
    assertRefused(
        request(greedy(5, true), 1, VOCAB),
        "failed INVALID_REQUEST",
        "prompt[1] is 500, tokens of this model are 0 to 499");
    assertRefused(
        new TokenRequest("r", new int[] {1}, new int[] {-4}, greedy(5, true), new int[0], 0),
        "failed INVALID_REQUEST",
        "resume[0] is -4, tokens of this model are 0 to 499");
  }

  @Test
  void shouldRefuseAPromptThatFillsTheContext() {
    assertRefused(
        request(greedy(5, true), prompt(200, 1)),
        "failed PROMPT_TOO_LONG",
        "the prompt has 200 tokens; the model's context is 200, one of which is to be generated");
  }

  @Test
  void shouldRefuseAPromptThatTheKvMemoryCanNeverHold() {
    use(new Runner.Info(VOCAB, 200, 4, 5, 2), config);
    assertRefused(
        request(greedy(5, true), prompt(21, 1)),
        "failed PROMPT_TOO_LONG",
        "the prompt has 21 tokens; the KV memory holds 20 (the model would take more)");
  }

  @Test
  void shouldEndAtOnceWhatWasCompleteWhenItWasSaved() {
    int[] resume = {5, 6, 7};
    TokenRequest request =
        new TokenRequest("r", new int[] {1}, resume, greedy(3, true), new int[0], 0);
    Recorder recorder = new Recorder();
    assertThat(runInto(request, recorder)).isEqualTo("LENGTH");
    assertThat(recorder.tokens).isEmpty();
  }

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
  void shouldCancelWaitingAndRunningSequences() {
    Engine engine = driven(config.withMaxSequences(1));
    Recorder running = new Recorder();
    Recorder waiting = new Recorder();
    Recorder submitted = new Recorder();
    Engine.Handle first = engine.submit(request(greedy(100, true), 3), running);
    Engine.Handle second = engine.submit(request(greedy(100, true), 4), waiting);
    rounds(engine, 5);
    Engine.Handle third = engine.submit(request(greedy(100, true), 5), submitted);
    assertThat(running.tokens).isNotEmpty();
    for (Engine.Handle handle : List.of(third, second, first, first)) {
      engine.abort(handle);
    }
    engine.round();
    assertThat(running.outcome()).isEqualTo("CANCELLED");
    assertThat(waiting.outcome()).isEqualTo("CANCELLED");
    assertThat(submitted.outcome()).isEqualTo("CANCELLED");
    int heard = running.tokens.size();
    rounds(engine, 5);
    assertThat(running.tokens).hasSize(heard);
    assertThat(engine.stats().kvUse()).isZero();
    assertThat(engine.stats().waiting() + engine.stats().running()).isZero();
  }

  @Test
  void shouldRefuseTheHandleOfAnotherEngine() {
    Engine one = driven(config);
    Engine other = driven(config);
    Engine.Handle handle = one.submit(request(greedy(1, true), 3), new Recorder());
    assertThatThrownBy(() -> other.abort(handle)).isInstanceOf(IllegalArgumentException.class);
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
  void shouldRunPriorityFirstAndEqualOnesInOrder() {
    Engine engine = driven(config.withMaxSequences(1));
    List<String> order = new ArrayList<>();
    int[] priorities = {5, 1, 5, 0, 1};
    for (int i = 0; i < priorities.length; i++) {
      int index = i;
      engine.submit(
          new TokenRequest(
              "r", new int[] {3}, new int[0], greedy(2, true), new int[0], priorities[i]),
          new Recorder() {
            @Override
            public void onFinished(FinishReason reason) {
              order.add("r" + index);
            }
          });
    }
    rounds(engine, 100);
    assertThat(order).containsExactly("r3", "r1", "r4", "r0", "r2");
  }

  @Test
  void shouldLetShortPromptsInBesideALongOne() {
    Engine engine = driven(config.withTokenBudget(32).withMaxChunk(20));
    Recorder large = new Recorder();
    Recorder small = new Recorder();
    engine.submit(request(greedy(5, true), prompt(150, 2)), large);
    engine.submit(request(greedy(2, true), 4, 5), small);
    rounds(engine, 4);
    assertThat(small.outcome()).isEqualTo("LENGTH");
    assertThat(large.tokens).isEmpty();
    rounds(engine, 20);
    assertThat(large.outcome()).isEqualTo("LENGTH");
  }

  @Test
  void shouldTakeTheWholeBudgetForOnePromptWhenNobodyWaits() {
    Engine engine = driven(config.withTokenBudget(32).withMaxChunk(5));
    Recorder recorder = new Recorder();
    engine.submit(request(greedy(1, true), prompt(64, 2)), recorder);
    rounds(engine, 3);
    assertThat(recorder.outcome()).isEqualTo("LENGTH");
    assertThat(runner.steps).isEqualTo(2);
  }

  @Test
  void shouldLetOnlySoManyPassALargeOne() {
    use(new Runner.Info(VOCAB, 200, 4, 16, 2), config);
    Engine engine = driven(config.withMaxBypass(3).withPrefixCache(false));
    List<String> order = new ArrayList<>();
    // Half of the memory is taken, the large one needs nearly all of it, small ones keep coming.
    engine.submit(request(greedy(30, true), 3), named("first", order));
    engine.round();
    engine.submit(request(greedy(40, true), prompt(20, 5)), named("large", order));
    for (int i = 0; i < 10; i++) {
      engine.submit(request(greedy(4, true), 3), named("small" + i, order));
    }
    rounds(engine, 300);
    assertThat(order).hasSize(12);
    assertThat(order).startsWith("first", "small0", "small1", "small2", "large", "small3");
  }

  @Test
  void shouldKeepStrictOrderWithoutBypass() {
    use(new Runner.Info(VOCAB, 200, 4, 16, 2), config);
    Engine engine = driven(config.withMaxBypass(0).withPrefixCache(false));
    List<String> order = new ArrayList<>();
    engine.submit(request(greedy(30, true), 3), named("first", order));
    engine.round();
    engine.submit(request(greedy(40, true), prompt(20, 5)), named("large", order));
    engine.submit(request(greedy(4, true), 3), named("small", order));
    rounds(engine, 300);
    assertThat(order).containsExactly("first", "large", "small");
  }

  @Test
  void shouldFindTheBeginningOfAnEarlierPromptInTheCache() {
    Engine engine = driven(config);
    int[] prompt = prompt(22, 3);
    Recorder first = new Recorder();
    Recorder second = new Recorder();
    engine.submit(request(greedy(9, true), prompt), first);
    rounds(engine, 20);
    engine.submit(request(greedy(9, true), prompt), second);
    rounds(engine, 20);
    assertThat(first.cached).isZero();
    assertThat(second.cached).isEqualTo(20);
    assertThat(second.tokens).isEqualTo(first.tokens).hasSize(9);
    // A conversation goes on: the answer is in the cache as well, but the last token is computed.
    int[] next =
        IntStream.concat(IntStream.of(prompt), first.tokens.stream().mapToInt(i -> i).limit(7))
            .toArray();
    Recorder third = new Recorder();
    engine.submit(request(greedy(2, true), next), third);
    rounds(engine, 20);
    assertThat(third.cached).isEqualTo(28);
    assertThat(third.tokens).isEqualTo(first.tokens.subList(7, 9));
  }

  @Test
  void shouldComputeAtLeastOneTokenOfACachedPrompt() {
    Engine engine = driven(config);
    int[] prompt = prompt(24, 3);
    for (int expected : new int[] {0, 20}) {
      Recorder recorder = new Recorder();
      engine.submit(request(greedy(9, true), prompt), recorder);
      rounds(engine, 20);
      assertThat(recorder.cached).isEqualTo(expected);
    }
  }

  @Test
  void shouldCacheNothingWhenSwitchedOff() {
    Engine engine = driven(config.withPrefixCache(false));
    for (int i = 0; i < 2; i++) {
      Recorder recorder = new Recorder();
      engine.submit(request(greedy(9, true), prompt(22, 3)), recorder);
      rounds(engine, 20);
      assertThat(recorder.cached).isZero();
      assertThat(recorder.outcome()).isEqualTo("LENGTH");
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

  @Test
  void shouldSubmitTheNextStepBeforeTheLastOneEnded() {
    List<String> calls = new ArrayList<>();
    Runner watched =
        new Runner() {
          @Override
          public Info info() {
            return info;
          }

          @Override
          public StepHandle submit(Batch batch) {
            int from = batch.tokenFrom[batch.tokenCount - 1];
            calls.add("submit " + batch.contextLength[0] + " from " + from);
            StepHandle handle = runner.submit(batch);
            int length = batch.contextLength[0];
            return () -> {
              calls.add("await " + length);
              return handle.await();
            };
          }

          @Override
          public void close() {}
        };
    Engine engine = new Engine(watched, config, false);
    engine.submit(request(greedy(3, true), 4, 5), new Recorder());
    while (engine.round()) {}
    assertThat(calls)
        .containsExactly(
            "submit 2 from -1",
            "submit 3 from 0",
            "await 2",
            "submit 4 from 0",
            "await 3",
            "await 4");
  }

  @Test
  void shouldTellWhatItHoldsAndWhatWaits() {
    Engine engine = driven(config.withMaxSequences(1));
    engine.submit(request(greedy(20, true), prompt(10, 1)), new Recorder());
    engine.submit(request(greedy(20, true), prompt(15, 2)), new Recorder());
    assertThat(engine.stats().waiting()).as("in the inbox").isEqualTo(2);
    assertThat(engine.stats().waitingTokens()).isEqualTo(25);
    rounds(engine, 2);
    assertThat(engine.stats().waiting()).isEqualTo(1);
    assertThat(engine.stats().running()).isEqualTo(1);
    assertThat(engine.stats().waitingTokens()).isEqualTo(15);
    assertThat(engine.stats().runningTokens()).isEqualTo(10);
    assertThat(engine.stats().generated()).isEqualTo(1);
    assertThat(engine.stats().kvUse()).isEqualTo(3 / 64.0);
    assertThat(engine.stats().failure()).isNull();
    assertThat(System.nanoTime() - engine.stats().lastStepNanos()).isBetween(0L, 60_000_000_000L);
  }

  @Test
  void shouldNotLookHungAfterARest() throws InterruptedException {
    try (Engine engine = new Engine(runner, config)) {
      long before = engine.stats().lastStepNanos();
      long deadline = System.nanoTime() + 20_000_000_000L;
      while (engine.stats().lastStepNanos() - before < 1_000_000_000L) {
        assertThat(System.nanoTime()).as("no sign of life").isLessThan(deadline);
        Thread.sleep(50);
      }
    }
  }

  @Test
  void shouldWakeForEachSubmission() {
    try (Engine engine = new Engine(runner, config)) {
      long start = System.nanoTime();
      for (int i = 0; i < 100; i++) {
        Recorder recorder = new Recorder();
        engine.submit(request(greedy(1, true), 3), recorder);
        recorder.end.join();
      }
      // Without being woken it would look up twice a second.
      assertThat(System.nanoTime() - start).isLessThan(10_000_000_000L);
    }
  }

  @Test
  void shouldTakeManyThousandsAtOnceFromManyThreads() throws InterruptedException {
    use(
        new Runner.Info(VOCAB, 200, 16, 2000, 2),
        EngineConfig.defaults().withMaxSequences(256).withTokenBudget(8192));
    int each = 10_000;
    List<Recorder> recorders = new ArrayList<>();
    IntStream.range(0, 3 * each).forEach(i -> recorders.add(new Recorder()));
    try (Engine engine = new Engine(runner, config)) {
      List<Thread> threads = new ArrayList<>();
      for (int t = 0; t < 3; t++) {
        int first = t * each;
        threads.add(
            Thread.ofPlatform()
                .start(
                    () -> {
                      for (int i = first; i < first + each; i++) {
                        Engine.Handle handle =
                            engine.submit(
                                request(greedy(2, true), 3, 2 + i % 400, 2 + i % 399),
                                recorders.get(i));
                        if (i % 10 == 9) {
                          engine.abort(handle);
                        }
                      }
                    }));
      }
      for (Thread thread : threads) {
        thread.join();
      }
      for (int i = 0; i < recorders.size(); i++) {
        Recorder recorder = recorders.get(i);
        String end = recorder.end.join();
        assertThat(recorder.broken).isNull();
        if (i % 10 == 9 && end.equals("CANCELLED")) {
          continue;
        }
        assertThat(end).isEqualTo("LENGTH");
        assertThat(recorder.tokens).isEqualTo(model(2, 3, 2 + i % 400, 2 + i % 399));
      }
    }
  }

  @Test
  void shouldAllocateNothingInASteadyStep() {
    EngineConfig wide = EngineConfig.defaults().withMaxSequences(64).withTokenBudget(64);
    Runner.Info large = new Runner.Info(VOCAB, 100_000, 16, 64 * 1000, 2);
    Engine engine = new Engine(new ConstantRunner(large), wide, false);
    for (int i = 0; i < 64 + 1000; i++) {
      engine.submit(
          request(greedy(15_000, true), 3, 2 + i % 400),
          new Recorder() {
            @Override
            public void onToken(int token, @Nullable TokenLogprob logprob) {}
          });
    }
    rounds(engine, 2000);
    com.sun.management.ThreadMXBean threads =
        (com.sun.management.ThreadMXBean) ManagementFactory.getThreadMXBean();
    long before = threads.getCurrentThreadAllocatedBytes();
    rounds(engine, 1000);
    long perStep = (threads.getCurrentThreadAllocatedBytes() - before) / 1000;
    // Token arrays and block tables double now and then: 64 sequences, a few bytes a token.
    assertThat(perStep).as("bytes a step of 64 sequences").isLessThan(64 * 24);
    assertThat(engine.stats().running()).isEqualTo(64);
  }

  @Test
  void shouldRefuseARunnerThatItCannotDrive() {
    Runner deep = new HashRunner(new Runner.Info(VOCAB, 9, 4, 9, 3), config, new Random(1));
    assertThatThrownBy(() -> new Engine(deep, config)).hasMessageContaining("a depth of 1 or 2");
  }

  @Test
  void shouldRefuseAConfigThatCannotWork() {
    EngineConfig defaults = EngineConfig.defaults();
    assertThatThrownBy(() -> defaults.withMaxSequences(0))
        .hasMessage("maxSequences is 0, it must be 1 or more");
    assertThatThrownBy(() -> defaults.withTokenBudget(255))
        .hasMessage("tokenBudget is 255, it must be at least maxSequences (256)");
    assertThatThrownBy(() -> defaults.withMaxChunk(0)).hasMessageContaining("maxChunk");
    assertThatThrownBy(() -> defaults.withMaxBypass(-1)).hasMessageContaining("maxBypass");
    assertThatThrownBy(() -> defaults.withStepAttempts(0)).hasMessageContaining("stepAttempts");
  }

  private void use(Runner.Info newInfo, EngineConfig newConfig) {
    info = newInfo;
    config = newConfig;
    runner = new HashRunner(info, config, new Random(1));
  }

  /** An engine that runs in the test's own thread. */
  private Engine driven(EngineConfig with) {
    config = with;
    HashRunner made = new HashRunner(info, with, new Random(1));
    made.failing = runner.failing;
    runner = made;
    return new Engine(runner, with, false);
  }

  private static void rounds(Engine engine, int count) {
    for (int i = 0; i < count; i++) {
      engine.round();
    }
  }

  private String run(TokenRequest request) {
    return runInto(request, new Recorder());
  }

  private String runInto(TokenRequest request, Recorder recorder) {
    Engine engine = driven(config);
    engine.submit(request, recorder);
    rounds(engine, 300);
    assertThat(recorder.broken).isNull();
    return recorder.end.getNow("goes on");
  }

  private void assertRefused(TokenRequest request, String outcome, String message) {
    Recorder recorder = new Recorder();
    assertThat(runInto(request, recorder)).isEqualTo(outcome);
    assertThat(recorder.message).isEqualTo(message);
    assertThat(recorder.cached).as("onStarted was not called").isEqualTo(-1);
  }

  private static Recorder named(String name, List<String> order) {
    return new Recorder() {
      @Override
      public void onStarted(int cachedTokens) {
        order.add(name);
      }
    };
  }

  private static TokenRequest request(SamplingParams sampling, int... prompt) {
    return new TokenRequest("r", prompt, new int[0], sampling, new int[] {HashRunner.STOP}, 0);
  }

  private static SamplingParams greedy(int maxTokens, boolean ignoreEos) {
    return new SamplingParams(0, 1, 0, 0, 1, 0, 0, 0, maxTokens, 0, List.of(), ignoreEos, -1);
  }

  private static int[] prompt(int length, int seed) {
    return new Random(seed).ints(length, 2, VOCAB).toArray();
  }

  private static List<Integer> model(int count, int... prompt) {
    int hash = HashRunner.start(VOCAB);
    for (int token : prompt) {
      hash = HashRunner.mix(hash, token);
    }
    List<Integer> tokens = new ArrayList<>();
    for (int i = 0; i < count; i++) {
      int token = HashRunner.token(hash, 0, VOCAB, false, false);
      tokens.add(token);
      hash = HashRunner.mix(hash, token);
    }
    return tokens;
  }
}
