package dev.millrace.inference.engine;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.millrace.inference.api.SamplingParams;
import dev.millrace.inference.api.Scheduling;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** What an engine makes of one request, and how it takes many. */
@Timeout(60)
class EngineTest extends EngineFixture {
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
        new TokenRequest(
            "r", new int[] {3}, new int[0], greedy(100, false), new int[] {stop}, Scheduling.ANY);
    Recorder recorder = new Recorder();
    assertThat(runInto(request, recorder)).isEqualTo("STOP");
    assertThat(recorder.tokens).isEqualTo(all.subList(0, first));
  }

  @Test
  void shouldNotStopBeforeALeastLengthBeyondItsLimit() {
    int most = Integer.MAX_VALUE;
    SamplingParams sampling =
        new SamplingParams(0, 1, 0, 0, 1, 0, 0, 0, most, most, List.of(), false, -1);
    int[] stop = {model(40, 3).get(20)};
    TokenRequest request =
        new TokenRequest("r", new int[] {3}, new int[0], sampling, stop, Scheduling.ANY);
    assertThat(run(request)).isEqualTo("LENGTH");
  }

  @Test
  void shouldGiveTheSameContinuationFromEveryToken() {
    List<Integer> whole = model(30, 8, 9);
    for (int known = 0; known <= 30; known++) {
      int[] resume = whole.stream().limit(known).mapToInt(i -> i).toArray();
      TokenRequest request =
          new TokenRequest(
              "r", new int[] {8, 9}, resume, greedy(30, true), new int[0], Scheduling.ANY);
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
        new TokenRequest(
            "r", new int[] {1}, new int[] {-4}, greedy(5, true), new int[0], Scheduling.ANY),
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
        new TokenRequest("r", new int[] {1}, resume, greedy(3, true), new int[0], Scheduling.ANY);
    Recorder recorder = new Recorder();
    assertThat(runInto(request, recorder)).isEqualTo("LENGTH");
    assertThat(recorder.tokens).isEmpty();
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
}
