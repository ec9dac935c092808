package dev.millrace.inference.engine;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.millrace.inference.api.SamplingParams;
import dev.millrace.inference.api.Scheduling;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Random;
import java.util.Set;
import java.util.random.RandomGenerator;
import org.junit.jupiter.api.Test;

class WaitingQueueTest {
  private static final Engine ENGINE = EngineFixture.idle();

  private WaitingQueue queue = new WaitingQueue(0.1);
  private long arrivals;

  /** With {@code tokens} known and to come. */
  private Sequence add(String name, int priority, String tenant, int tokens) {
    SamplingParams sampling =
        new SamplingParams(0, 1, 0, 0, 1, 0, 0, 0, tokens - 1, 0, List.of(), true, -1);
    Sequence sequence =
        new Sequence(
            ENGINE,
            new TokenRequest(
                name,
                new int[] {1},
                new int[0],
                sampling,
                new int[0],
                Scheduling.of(priority, tenant)),
            new Recorder(),
            1_000_000,
            null);
    sequence.arrival = arrivals++;
    queue.add(sequence);
    return sequence;
  }

  /** Admits the next one. */
  private Sequence take() {
    Sequence sequence = queue.poll();
    assertThat(sequence).isNotNull();
    queue.admitted(sequence);
    queue.settle();
    return sequence;
  }

  private List<String> take(int count) {
    List<String> names = new ArrayList<>();
    for (int i = 0; i < count; i++) {
      names.add(take().request.id());
    }
    return names;
  }

  @Test
  void shouldGiveEachTenantTheSameTokensWhateverItQueues() {
    for (int i = 0; i < 10_000; i++) {
      add("bulk" + i, 0, "bulk", 100);
    }
    for (int i = 0; i < 20; i++) {
      add("few" + i, 0, "few", 100);
      add("large" + i, 0, "large", 400);
    }
    Map<String, Integer> given = new HashMap<>();
    for (int i = 0; i < 45; i++) {
      Sequence next = take();
      given.merge(next.request.scheduling().tenant(), next.limit, Integer::sum);
    }
    assertThat(given.get("few")).isBetween(1600, 2000);
    assertThat(given.get("large")).isBetween(1600, 2000);
    assertThat(given.get("bulk")).isBetween(1600, 2000);
  }

  @Test
  void shouldNotLetAnIdleTenantSaveUpAClaim() {
    for (int i = 0; i < 100; i++) {
      add("a" + i, 0, "a", 100);
    }
    take(50);
    for (int i = 0; i < 100; i++) {
      add("b" + i, 0, "b", 100);
    }
    assertThat(take(20)).filteredOn(name -> name.startsWith("a")).hasSizeBetween(9, 11);
  }

  @Test
  void shouldGiveBackWhatASequenceDidNotUse() {
    for (int i = 0; i < 100; i++) {
      add("a" + i, 0, "a", 1_000);
      add("b" + i, 0, "b", 100);
    }
    Map<String, Integer> taken = new HashMap<>();
    for (int i = 0; i < 60; i++) {
      Sequence next = take();
      // Those that might have come to 1,000 tokens come to 100 as well.
      queue.ended(next, 100);
      taken.merge(next.request.scheduling().tenant(), 1, Integer::sum);
    }
    assertThat(taken.get("a")).isBetween(29, 31);
  }

  @Test
  void shouldTakeOneThatIsToWaitAgainForOneThatWasNotAdmitted() {
    Sequence low = add("low", 5, "b", 100);
    for (int i = 0; i < 30; i++) {
      add("a" + i, 0, "a", 100);
      add("b" + i, 0, "b", 100);
    }
    while (take() != low) {}
    // It has had its turn, and still has it.
    queue.returned(low);
    queue.add(low);
    assertThat(take()).isSameAs(low);

    queue = new WaitingQueue(0);
    for (int i = 0; i < 30; i++) {
      add("a" + i, 0, "a", 100);
      add("b" + i, 0, "b", 100);
    }
    take(10);
    // Over and over, and still its tenant has been given no more than the other.
    for (int i = 0; i < 10; i++) {
      Sequence gone = take();
      assertThat(gone.request.id()).isEqualTo("a5");
      queue.returned(gone);
      queue.add(gone);
    }
    assertThat(take(4)).containsExactlyInAnyOrder("a5", "b5", "a6", "b6");
  }

  @Test
  void shouldKeepTheOrderOfSubmissionWithinATenant() {
    for (int i = 0; i < 50; i++) {
      add("a" + i, 0, "a", 2 + i * 37 % 90);
    }
    assertThat(take(4)).containsExactly("a0", "a1", "a2", "a3");
  }

  @Test
  void shouldOweTheLowerPrioritiesTheirShare() {
    for (int i = 0; i < 1000; i++) {
      add("high" + i, -1, "", 100);
      add("mid" + i, 0, "", 100);
      add("low" + i, 7, "", 100);
    }
    List<String> taken = take(1000);
    assertThat(taken).filteredOn(name -> name.startsWith("high")).hasSizeBetween(895, 905);
    assertThat(taken.subList(0, 9)).allMatch(name -> name.startsWith("high"));
    assertThat(taken)
        .filteredOn(n -> n.startsWith("mid"))
        .as("eldest first")
        .hasSizeBetween(45, 55);
    assertThat(taken)
        .filteredOn(n -> n.startsWith("low"))
        .as("eldest first")
        .hasSizeBetween(45, 55);
  }

  @Test
  void shouldOweNothingForAnUrgentOneThatIsToWaitAgain() {
    for (int i = 0; i < 1000; i++) {
      add("high" + i, -1, "", 100);
      add("low" + i, 7, "", 100);
    }
    int low = 0;
    for (int i = 0; i < 1000; i++) {
      Sequence next = take();
      if (next.request.id().startsWith("low")) {
        low++;
      } else if (next.preempted++ == 0) {
        queue.returned(next);
        queue.add(next);
        i--;
      }
    }
    assertThat(low).isBetween(90, 110);
  }

  @Test
  void shouldOfferALowOneThatHasItsTurnUntilItFits() {
    Sequence large = add("large", 9, "", 1_000);
    for (int i = 0; i < 400; i++) {
      add("high" + i, 0, "", 100);
      add("low" + i, 9, "", 10);
    }
    assertThat(take(90)).allMatch(name -> name.startsWith("high"));
    for (int i = 0; i < 50; i++) {
      assertThat(queue.poll()).as("round %d", i).isSameAs(large);
      // It does not fit, and others are admitted before it is put back.
      queue.admitted(Objects.requireNonNull(queue.poll()));
      queue.admitted(Objects.requireNonNull(queue.poll()));
      queue.add(large);
      queue.settle();
    }
    assertThat(take()).isSameAs(large);
  }

  @Test
  void shouldKeepWhatIsOwedToALowOneThatIsOutAndAloneAtItsPriority() {
    Sequence large = add("large", 9, "", 1_000);
    for (int i = 0; i < 200; i++) {
      add("high" + i, 0, "", 100);
    }
    take(90);
    assertThat(queue.poll()).isSameAs(large);
    take();
    queue.add(large);
    assertThat(queue.poll()).isSameAs(large);
  }

  @Test
  void shouldPassTheTurnOnWhenItsSequenceIsCancelled() {
    Sequence large = add("large", 9, "", 1_000);
    for (int i = 0; i < 200; i++) {
      add("high" + i, 0, "", 100);
    }
    take(90);
    assertThat(queue.poll()).isSameAs(large);
    queue.add(large);
    queue.remove(large);
    Sequence next = add("next", 9, "", 1_000);
    assertThat(queue.poll()).isSameAs(next);
  }

  @Test
  void shouldGiveNothingBackToATenantThatWasForgottenSince() {
    Sequence first = add("first", 0, "a", 1_000);
    assertThat(take()).isSameAs(first);
    queue.settle();
    // Nobody waited: the priority and its tenants begin anew.
    for (int i = 0; i < 20; i++) {
      add("a" + i, 0, "a", 100);
      add("b" + i, 0, "b", 100);
    }
    queue.ended(first, 1);
    assertThat(take(10)).filteredOn(name -> name.startsWith("a")).hasSize(5);
  }

  @Test
  void shouldKeepStrictPrioritiesWithoutAShare() {
    queue = new WaitingQueue(0);
    for (int i = 0; i < 200; i++) {
      add("low" + i, 1, "", 100);
    }
    for (int i = 0; i < 200; i++) {
      add("high" + i, 0, "", 100);
    }
    assertThat(take(200)).allMatch(name -> name.startsWith("high"));
  }

  @Test
  void shouldNotHoldAHighPriorityUpBehindABacklogOfALowOne() {
    for (int i = 0; i < 100_000; i++) {
      add("low" + i, 5, "t" + i % 10, 100);
    }
    take(5);
    for (int i = 0; i < 9; i++) {
      add("high" + i, 0, "", 100);
    }
    assertThat(take(11)).filteredOn(name -> name.startsWith("high")).hasSize(9);
  }

  @Test
  void shouldPutBackWhatDidNotFitWhereItWas() {
    add("a0", 0, "a", 500);
    add("a1", 0, "a", 10);
    add("b0", 0, "b", 10);
    Sequence large = Objects.requireNonNull(queue.poll());
    assertThat(take().request.id()).isEqualTo("a1");
    queue.add(large);
    assertThat(take(2)).containsExactly("b0", "a0");
    assertThat(queue.isEmpty()).isTrue();
  }

  @Test
  void shouldRefuseToTakeOutWhatDoesNotWait() {
    Sequence sequence = add("a", 0, "a", 10);
    queue.remove(sequence);
    assertThatThrownBy(() -> queue.remove(sequence)).isInstanceOf(IllegalStateException.class);
    assertThat(queue.poll()).isNull();
  }

  @Test
  void shouldForgetTenantsThatAreGone() {
    add("stays", 0, "stays", 1_000_000);
    for (int i = 0; i < 20_000; i++) {
      add("x", 0, "tenant " + i, 10);
      add("y", 1, "other " + i, 10);
      queue.ended(take(), 10);
      queue.ended(take(), 10);
    }
    assertThat(queue.tenants()).isLessThan(5_000);
  }

  @Test
  void shouldStarveNobodyAndLoseNobodyInRandomWorlds() {
    for (int seed = 0; seed < 300; seed++) {
      Random random = new Random(seed);
      queue = new WaitingQueue(0.05 + random.nextInt(4) * 0.1);
      arrivals = 0;
      world(random, "seed " + seed);
    }
  }

  private void world(RandomGenerator random, String seed) {
    Set<Sequence> waiting = new HashSet<>();
    int tenants = 1 + random.nextInt(5);
    for (int turn = 0; turn < 400; turn++) {
      // More come than go, and mostly at the highest priority.
      for (int i = random.nextInt(3); i >= 0; i--) {
        int priority = random.nextInt(4) > 0 ? 0 : random.nextInt(5);
        waiting.add(add("s", priority, "t" + random.nextInt(tenants), 2 + random.nextInt(60)));
      }
      if (random.nextInt(5) == 0) {
        Sequence cancelled = waiting.iterator().next();
        queue.remove(cancelled);
        waiting.remove(cancelled);
      }
      if (!waiting.isEmpty()) {
        Sequence back = random.nextInt(4) == 0 ? queue.poll() : null;
        if (waiting.size() > (back == null ? 0 : 1)) {
          Sequence next = take();
          assertThat(waiting.remove(next)).as(seed).isTrue();
          if (random.nextBoolean()) {
            queue.ended(next, 1 + random.nextInt(next.limit));
          }
        }
        if (back != null) {
          queue.add(back);
        }
      }
      assertThat(queue.size()).as(seed).isEqualTo(waiting.size());
    }
    assertThat(new HashSet<>(queue.all())).as(seed).isEqualTo(waiting);
    // The eldest of all is next or at most a few turns away, however many came after it.
    Sequence eldest =
        waiting.stream().min((a, b) -> Long.compare(a.arrival, b.arrival)).orElseThrow();
    int turns = 0;
    while (waiting.contains(eldest)) {
      assertThat(turns++).as(seed).isLessThan(400);
      add("more", -1, "new", 60);
      Sequence next = take();
      waiting.remove(next);
    }
  }
}
