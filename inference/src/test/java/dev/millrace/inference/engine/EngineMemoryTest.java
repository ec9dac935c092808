package dev.millrace.inference.engine;

import static org.assertj.core.api.Assertions.assertThat;

import dev.millrace.inference.api.Scheduling;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** Who is let in by what is expected to be held, and what becomes of it where that was wrong. */
@Timeout(60)
class EngineMemoryTest extends EngineFixture {
  /** Never drawn: whoever waits for it goes on to the limit, but nobody knows. */
  private static final int[] NEVER = {HashRunner.POISON};

  private final List<Recorder> recorders = new ArrayList<>();
  private final List<Sequence> sequences = new ArrayList<>();

  /** An engine that has seen nothing but answers of five tokens. */
  private Engine hopeful(int blocks) {
    return expecting(5, blocks, false);
  }

  private Engine expecting(int tokens, int blocks, boolean cache) {
    use(new Runner.Info(VOCAB, 200, 4, blocks, 2), config.withPrefixCache(cache));
    Engine engine = driven(config);
    AnswerLengths lengths = engine.scheduler().admission().lengths();
    for (int i = 0; i < 1000; i++) {
      lengths.ended(tokens, true);
    }
    lengths.learn();
    return engine;
  }

  /** What all answers so far tell, though nobody had to ask yet. */
  private static AnswerLengths learned(Engine engine) {
    AnswerLengths lengths = engine.scheduler().admission().lengths();
    lengths.learn();
    return lengths;
  }

  private Recorder submit(Engine engine, int tokens, int[] stops, Scheduling scheduling) {
    recorders.add(new Recorder());
    int[] prompt = {7, 8, 2 + recorders.size()};
    sequences.add(
        (Sequence)
            engine.submit(
                new TokenRequest(
                    "r", prompt, new int[0], greedy(tokens, stops.length == 0), stops, scheduling),
                recorders.getLast()));
    return recorders.getLast();
  }

  private void assertAllEnded() {
    for (int i = 0; i < recorders.size(); i++) {
      Recorder recorder = recorders.get(i);
      assertThat(recorder.broken).isNull();
      assertThat(recorder.outcome()).isEqualTo("LENGTH");
      int count = sequences.get(i).request.sampling().maxTokens();
      assertThat(recorder.tokens).as("request %d", i).isEqualTo(model(count, 7, 8, 3 + i));
    }
  }

  private List<Integer> preempted() {
    return sequences.stream().map(s -> s.preempted).toList();
  }

  @Test
  void shouldLetInByWhatAnswersTakeAndNotByTheirLimits() {
    Engine engine = hopeful(40);
    for (int i = 0; i < 8; i++) {
      submit(engine, 150, NEVER, Scheduling.ANY);
    }
    rounds(engine, 2);
    assertThat(engine.stats().running()).as("each may come to all memory").isEqualTo(8);
  }

  @Test
  void shouldLearnFromAnswersThatEndBeforeTheirLimits() {
    use(new Runner.Info(VOCAB, 200, 4, 40, 2), config.withPrefixCache(false));
    Engine engine = driven(config);
    for (int i = 0; i < 80; i++) {
      int fifth = model(150, 7, 8, 3 + i).get(4);
      Recorder recorder = submit(engine, 150, new int[] {fifth}, Scheduling.ANY);
      rounds(engine, 12);
      assertThat(recorder.outcome()).isEqualTo("STOP");
      assertThat(recorder.tokens).hasSizeLessThan(5);
    }
    assertThat(learned(engine).quantile(0, 0.5)).isLessThan(10);
  }

  @Test
  void shouldLearnNothingOfTheLengthOfAnswersFromThoseThatAreCancelled() {
    use(new Runner.Info(VOCAB, 200, 4, 40, 2), config.withPrefixCache(false));
    Engine engine = driven(config);
    for (int i = 0; i < 80; i++) {
      Recorder recorder = submit(engine, 150, NEVER, Scheduling.ANY);
      rounds(engine, 6);
      engine.abort(sequences.getLast());
      rounds(engine, 2);
      assertThat(recorder.outcome()).isEqualTo("CANCELLED");
    }
    assertThat(learned(engine).quantile(0, 0.5)).isGreaterThan(100);
  }

  @Test
  void shouldExpectAnAnswerThatNothingEndsToComeToItsLimit() {
    Engine engine = hopeful(40);
    for (int i = 0; i < 8; i++) {
      submit(engine, 150, new int[0], Scheduling.ANY);
    }
    rounds(engine, 2);
    assertThat(engine.stats().running()).isEqualTo(1);
    rounds(engine, 2000);
    assertAllEnded();
    assertThat(engine.counters().preemptions()).isZero();
  }

  @Test
  void shouldLookAsFarAsTheLongestAnswerAskedForInAPlan() {
    use(new Runner.Info(VOCAB, 4000, 4, 1200, 2), config.withPrefixCache(false));
    Engine engine = driven(config);
    submit(engine, 5, new int[0], Scheduling.ANY);
    submit(engine, 6, new int[0], Scheduling.ANY);
    submit(engine, 900, new int[0], Scheduling.ANY);
    rounds(engine, 2);
    assertThat(engine.stats().running()).isEqualTo(3);
    rounds(engine, 1000);
    assertAllEnded();
  }

  @Test
  void shouldLetOneInWhenThereWillBeRoomByTheTimeThatItIsNeeded() {
    Engine engine = hopeful(25);
    Recorder first = submit(engine, 57, new int[0], Scheduling.ANY);
    Recorder second = submit(engine, 61, new int[0], Scheduling.ANY);
    // At the first one's end it has 59 tokens in 60 places; 40 are left for the second one.
    int round = 0;
    while (second.tokens.isEmpty()) {
      engine.round();
      round++;
    }
    assertThat(first.tokens).hasSizeBetween(19, 30);
    rounds(engine, 100);
    assertAllEnded();
    assertThat(engine.counters().preemptions()).isZero();
    assertThat(round).isLessThan(40);
  }

  @Test
  void shouldLeaveRoomForAnswersThatAreLongerThanExpected() {
    Engine engine = expecting(50, 30, false);
    Recorder first = submit(engine, 150, NEVER, Scheduling.ANY);
    submit(engine, 150, NEVER, Scheduling.ANY);
    rounds(engine, 3);
    assertThat(engine.stats().running()).as("54 tokens each of 120, if all is well").isEqualTo(1);
    while (engine.stats().running() < 2 && first.tokens.size() < 100) {
      engine.round();
    }
    assertThat(first.tokens).as("less can go wrong").hasSizeBetween(25, 50);
  }

  @Test
  void shouldCountABeginningThatSeveralShareOnce() {
    Engine engine = expecting(5, 30, true);
    int[] shared = prompt(80, 1);
    for (int i = 0; i < 5; i++) {
      int[] prompt = Arrays.copyOf(shared, 82);
      prompt[81] = 3 + i;
      recorders.add(new Recorder());
      engine.submit(request(greedy(3, true), prompt), recorders.getLast());
      // The first one computes it for all.
      rounds(engine, i == 0 ? 4 : 0);
    }
    rounds(engine, 2);
    assertThat(engine.stats().running()).isGreaterThanOrEqualTo(4);
    rounds(engine, 20);
    for (int i = 0; i < 5; i++) {
      int[] prompt = Arrays.copyOf(shared, 82);
      prompt[81] = 3 + i;
      assertThat(recorders.get(i).tokens).isEqualTo(model(3, prompt));
    }
    assertThat(engine.counters().preemptions()).isZero();
  }

  @Test
  void shouldKnowThatABeginningIsHeldAfterItsFirstOwnerLeft() {
    Engine engine = expecting(5, 40, true);
    Recorder owner = new Recorder();
    int[] shared = prompt(80, 1);
    Engine.Handle first = engine.submit(request(greedy(20, true), shared), owner);
    rounds(engine, 4);
    Recorder sharer = new Recorder();
    int[] longer = Arrays.copyOf(shared, 81);
    engine.submit(request(greedy(40, true), longer), sharer);
    rounds(engine, 3);
    assertThat(engine.stats().running()).isEqualTo(2);
    engine.abort(first);
    // 120 of 160 tokens come to be held, 80 of them by nobody who was the first to.
    Recorder last = new Recorder();
    int[] prompt = prompt(30, 2);
    engine.submit(request(greedy(60, true), prompt), last);
    rounds(engine, 200);
    assertThat(sharer.cached).isEqualTo(80);
    assertThat(sharer.tokens).isEqualTo(model(40, longer));
    assertThat(last.tokens).isEqualTo(model(60, prompt));
    assertThat(engine.counters().preemptions()).isZero();
  }

  @Test
  void shouldMakeTheYoungestGiveWayAndLoseNothing() {
    Engine engine = hopeful(40);
    for (int i = 0; i < 6; i++) {
      submit(engine, 100, NEVER, Scheduling.ANY);
    }
    while (recorders.getFirst().outcome() == null) {
      engine.round();
    }
    assertThat(preempted().getFirst()).as("the eldest").isZero();
    assertThat(preempted().getLast()).as("the youngest").isPositive();
    rounds(engine, 2000);
    assertAllEnded();
    assertThat(preempted()).allMatch(count -> count <= 3);
    assertThat(engine.counters().preemptions())
        .isEqualTo(preempted().stream().mapToInt(i -> i).sum())
        .isPositive();
    // Each is computed again from its known tokens, never more than to its end.
    long ideal = 6 * 102;
    assertThat(engine.work().tokens()).isLessThan(3 * ideal);
  }

  @Test
  void shouldMakeTheLowestPriorityGiveWayFirst() {
    Engine engine = hopeful(40);
    submit(engine, 100, NEVER, Scheduling.of(5));
    rounds(engine, 3);
    submit(engine, 100, NEVER, Scheduling.of(0));
    rounds(engine, 2000);
    assertAllEnded();
    assertThat(preempted().get(0)).isPositive();
    assertThat(preempted().get(1)).isZero();
  }

  @Test
  void shouldMakeNobodyGiveWayOverAndOver() {
    Engine engine = hopeful(40);
    submit(engine, 100, NEVER, Scheduling.of(5));
    rounds(engine, 3);
    // Urgent ones keep coming, and each comes to more than was expected.
    for (int i = 0; i < 100; i++) {
      submit(engine, 50 + i % 7, NEVER, Scheduling.of(0));
      rounds(engine, 10);
    }
    rounds(engine, 6000);
    assertAllEnded();
    assertThat(preempted().getFirst()).isBetween(1, 3);
    assertThat(preempted()).allMatch(count -> count <= 3);
  }

  @Test
  void shouldNotWaitForOneThatIsHeld() {
    Engine engine = hopeful(40);
    Recorder held = submit(engine, 150, NEVER, Scheduling.ANY.allowed(80));
    while (held.tokens.size() < 80) {
      engine.round();
    }
    rounds(engine, 3);
    // The younger one needs more than the held one leaves, and gives way to nobody for that.
    Recorder other = submit(engine, 120, NEVER, Scheduling.ANY);
    rounds(engine, 400);
    assertThat(other.outcome()).isEqualTo("LENGTH");
    assertThat(held.tokens).hasSize(80);
    assertThat(preempted()).containsExactly(1, 0);
    engine.allow(sequences.getFirst(), 200);
    rounds(engine, 400);
    assertAllEnded();
  }

  @Test
  void shouldNotLetOneThatIsHeldOutlastThoseThatHaveSomethingToDo() {
    Engine engine = hopeful(40);
    Recorder held = submit(engine, 150, NEVER, Scheduling.ANY.allowed(100));
    while (held.tokens.size() < 100) {
      engine.round();
    }
    // However often it has given way.
    for (int i = 0; i < 6; i++) {
      Recorder other = submit(engine, 120, NEVER, Scheduling.ANY);
      rounds(engine, 400);
      assertThat(other.outcome()).as("request %d", i).isEqualTo("LENGTH");
    }
    engine.allow(sequences.getFirst(), 200);
    rounds(engine, 400);
    assertAllEnded();
  }

  @Test
  void shouldLetOneInThatFitsWhereAllOthersAreHeld() {
    for (int late = 0; late < 40; late++) {
      recorders.clear();
      sequences.clear();
      Engine engine = hopeful(20);
      submit(engine, 60, NEVER, Scheduling.ANY.allowed(25));
      rounds(engine, late);
      submit(engine, 60, NEVER, Scheduling.ANY.allowed(25));
      rounds(engine, 100);
      if (engine.stats().running() < 2) {
        continue;
      }
      // They hold 14 blocks, and what they are expected to come to is for later.
      Recorder other = submit(engine, 3, NEVER, Scheduling.ANY);
      rounds(engine, 10);
      assertThat(other.outcome()).as("%d rounds between", late).isEqualTo("LENGTH");
      engine.allow(sequences.get(0), 100);
      engine.allow(sequences.get(1), 100);
      rounds(engine, 400);
      assertAllEnded();
    }
  }

  @Test
  void shouldLetNobodyInToWhereSomebodyJustHadToGo() {
    Engine engine = hopeful(40);
    for (int i = 0; i < 30; i++) {
      submit(engine, 60, NEVER, Scheduling.ANY);
    }
    long before = 0;
    int running = 0;
    while (engine.round()) {
      long now = engine.counters().preemptions();
      if (now > before) {
        assertThat(engine.stats().running()).as("after some gave way").isLessThan(running);
      }
      before = now;
      running = engine.stats().running();
    }
    assertAllEnded();
    assertThat(before).isPositive();
    assertThat(preempted()).allMatch(count -> count <= 3);
  }

  @Test
  void shouldGetEveryoneDoneInMemoryForOne() {
    // 102 tokens of each are to be kept in 26 blocks.
    Engine engine = hopeful(26);
    for (int i = 0; i < 20; i++) {
      submit(engine, 100, NEVER, Scheduling.ANY);
    }
    int rounds = 0;
    while (engine.round()) {
      assertThat(++rounds).isLessThan(20 * 400);
    }
    assertAllEnded();
    assertThat(preempted()).allMatch(count -> count <= 3);
  }
}
