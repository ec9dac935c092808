package dev.millrace.inference.engine;

import static org.assertj.core.api.Assertions.assertThat;

import dev.millrace.inference.api.FinishReason;
import dev.millrace.inference.api.Generator;
import dev.millrace.inference.api.Scheduling;
import dev.millrace.inference.api.TokenLogprob;
import java.lang.management.ManagementFactory;
import java.util.ArrayList;
import java.util.List;
import java.util.Objects;
import java.util.stream.IntStream;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** Who runs when, beside whom, and with what from the cache. */
@Timeout(60)
class EngineSchedulingTest extends EngineFixture {
  @Test
  void shouldRunPriorityFirstAndEqualOnesInOrder() {
    Engine engine = driven(config.withMaxSequences(1));
    List<String> order = new ArrayList<>();
    int[] priorities = {5, 1, 5, 0, 1};
    for (int i = 0; i < priorities.length; i++) {
      int index = i;
      engine.submit(
          new TokenRequest(
              "r",
              new int[] {3},
              new int[0],
              greedy(2, true),
              new int[0],
              Scheduling.of(priorities[i])),
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
  void shouldLetOnlySoManyPassALargeOneOfALowPriorityThatHasItsTurn() {
    use(new Runner.Info(VOCAB, 200, 4, 16, 2), config);
    Engine engine = driven(config.withMaxBypass(3).withMaxSequences(2).withPrefixCache(false));
    List<String> order = new ArrayList<>();
    engine.submit(
        new TokenRequest("r", prompt(20, 5), new int[0], greedy(40, true), NONE, Scheduling.of(9)),
        named("large", order));
    // Two at a time leave the large one no room; it has its turn after 9 times its 60 tokens.
    for (int i = 0; i < 300; i++) {
      // They never end both at once.
      engine.submit(request(greedy(i == 0 ? 3 : 6, true), 3), named("small" + i, order));
    }
    rounds(engine, 2_000);
    assertThat(order).hasSize(301);
    assertThat(order.indexOf("large")).isBetween(70, 90);
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
  void shouldShareTheEngineBetweenTenants() {
    Engine engine = driven(config.withMaxSequences(2));
    List<String> order = new ArrayList<>();
    for (int i = 0; i < 40; i++) {
      engine.submit(of("bulk", 4), named("bulk" + i, order));
    }
    rounds(engine, 4);
    engine.submit(of("single", 4), named("single", order));
    rounds(engine, 10);
    assertThat(order.indexOf("single")).isBetween(2, 8);
  }

  @Test
  void shouldGiveALowPriorityItsShare() {
    Engine engine = driven(config.withMaxSequences(1));
    List<String> order = new ArrayList<>();
    engine.submit(
        new TokenRequest("r", new int[] {3}, new int[0], greedy(2, true), NONE, Scheduling.of(9)),
        named("low", order));
    for (int i = 0; i < 60; i++) {
      engine.submit(request(greedy(2, true), 3), named("high" + i, order));
    }
    rounds(engine, 400);
    assertThat(order).hasSize(61);
    assertThat(order.indexOf("low")).isBetween(5, 12);
  }

  @Test
  void shouldRunAloneWhatAsksForIt() {
    Engine engine = driven(config);
    Recorder other = new Recorder();
    Recorder suspect = new Recorder();
    engine.submit(request(greedy(50, true), 3), other);
    rounds(engine, 5);
    Scheduling alone = Scheduling.ANY.alone(10);
    engine.submit(
        new TokenRequest("s", new int[] {5, 6}, new int[0], greedy(30, true), NONE, alone),
        suspect);
    List<Integer> sizes = new ArrayList<>();
    runner.failing =
        batch -> {
          sizes.add(batch.sequences);
          return false;
        };
    int heard = other.tokens.size();
    while (suspect.tokens.size() < 9) {
      engine.round();
    }
    // What was in flight when it came still ends.
    assertThat(other.tokens.size()).isLessThanOrEqualTo(heard + 2);
    assertThat(sizes).allMatch(size -> size == 1);
    rounds(engine, 100);
    assertThat(sizes).as("side by side again").contains(2);
    assertThat(suspect.tokens).isEqualTo(model(30, 5, 6));
    assertThat(other.tokens).isEqualTo(model(50, 3));
  }

  @Test
  void shouldRunThoseThatAskForItAloneOneByOne() {
    Engine engine = driven(config);
    List<Recorder> recorders = new ArrayList<>();
    for (int i = 0; i < 5; i++) {
      recorders.add(new Recorder());
      engine.submit(
          new TokenRequest(
              "s",
              new int[] {5, 6 + i},
              new int[0],
              greedy(6, true),
              NONE,
              Scheduling.ANY.alone(99)),
          recorders.getLast());
    }
    runner.failing =
        batch -> {
          assertThat(batch.sequences).isEqualTo(1);
          return false;
        };
    rounds(engine, 100);
    for (int i = 0; i < 5; i++) {
      assertThat(recorders.get(i).outcome()).isEqualTo("LENGTH");
      assertThat(recorders.get(i).tokens).isEqualTo(model(6, 5, 6 + i));
    }
    assertThat(engine.scheduler().isolating()).isFalse();
  }

  @Test
  void shouldWaitWhereASequenceHasAllTheTokensThatItWasAllowed() {
    Engine engine = driven(config);
    Recorder other = new Recorder();
    Recorder held = new Recorder();
    Engine.Handle handle = engine.submit(allowed(7, 30), held);
    engine.submit(request(greedy(20, true), 3), other);
    rounds(engine, 60);
    assertThat(held.tokens).hasSize(7);
    assertThat(other.outcome()).as("the others go on").isEqualTo("LENGTH");
    assertThat(engine.round()).as("nothing to do").isFalse();
    assertThat(engine.stats().running()).isEqualTo(1);

    engine.allow(handle, 5);
    assertThat(engine.round()).as("that is less").isFalse();
    engine.allow(handle, 8);
    rounds(engine, 5);
    assertThat(held.tokens).hasSize(8);
    engine.allow(handle, 1000);
    rounds(engine, 60);
    assertThat(held.outcome()).isEqualTo("LENGTH");
    assertThat(held.tokens).isEqualTo(model(30, 5, 6));
  }

  @Test
  void shouldSayHowManyMustWaitAndSinceWhenInsteadOfLookingBusy() throws Exception {
    try (Engine engine = new Engine(runner, config)) {
      long before = System.nanoTime();
      Engine.Handle first = engine.submit(allowed(2, 4), new Recorder());
      awaitHeld(engine, 1);
      long stopped = System.nanoTime();
      engine.submit(allowed(2, 4), new Recorder());
      awaitHeld(engine, 2);
      Generator.Status waits = engine.stats();
      // Longer than its heartbeat.
      Thread.sleep(700);
      assertThat(engine.stats().lastStepNanos())
          .as("no step since")
          .isEqualTo(waits.lastStepNanos());
      assertThat(engine.stats().held()).isEqualTo(waits.held());
      assertThat(heldSince(engine)).as("the first one's").isBetween(before, stopped);

      engine.allow(first, 4);
      awaitHeld(engine, 1);
      assertThat(engine.stats().lastStepNanos()).isGreaterThan(waits.lastStepNanos());
      assertThat(heldSince(engine)).as("the second one's").isGreaterThan(stopped);
    }
  }

  private static long heldSince(Engine engine) {
    return Objects.requireNonNull(engine.stats().held()).sinceNanos();
  }

  private static void awaitHeld(Engine engine, int count) throws InterruptedException {
    for (Generator.Held held = engine.stats().held();
        held == null || held.requests() != count;
        held = engine.stats().held()) {
      Thread.sleep(1);
    }
  }

  @Test
  void shouldCountOnlyThoseThatMustWait() {
    Engine engine = driven(config);
    engine.submit(allowed(2, 30), new Recorder());
    engine.submit(request(greedy(30, true), 3), new Recorder());
    rounds(engine, 10);
    Generator.Status status = engine.stats();
    assertThat(status.running()).isEqualTo(2);
    assertThat(status.held()).extracting(Generator.Held::requests).isEqualTo(1);
  }

  private static final int[] NONE = {};

  /** Of so many tokens, which waits when it has the first ones. */
  private static TokenRequest allowed(int first, int tokens) {
    return new TokenRequest(
        "h",
        new int[] {5, 6},
        new int[0],
        greedy(tokens, true),
        NONE,
        Scheduling.ANY.allowed(first));
  }

  private static TokenRequest of(String tenant, int tokens) {
    return new TokenRequest(
        "r", new int[] {3}, new int[0], greedy(tokens, true), NONE, Scheduling.of(0, tenant));
  }
}
