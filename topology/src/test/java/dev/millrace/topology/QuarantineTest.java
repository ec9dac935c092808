package dev.millrace.topology;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;

import dev.millrace.inference.api.FinishReason;
import dev.millrace.inference.api.GenerateEvent.Failure;
import dev.millrace.schemas.CompletionFinish;
import io.opentelemetry.api.OpenTelemetry;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.stream.IntStream;
import org.apache.kafka.common.utils.Bytes;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/** What the crash of a worker means for the prompts that it had in flight. */
class QuarantineTest {
  /** Past the point of a crash: as many tokens as may have been lost. */
  private static final int PAST = 64 + 1;

  private final List<Harness> workers = new ArrayList<>();
  private Harness worker = started(new Harness());

  @AfterEach
  void close() {
    workers.forEach(Harness::close);
  }

  private Harness started(Harness made) {
    workers.add(made);
    return made;
  }

  /** The worker is gone without a word; another takes over. */
  private void crash(String... settings) {
    worker.tick();
    worker = started(worker.successor(settings));
    worker.tick();
  }

  private static int[] tokens(int count) {
    return IntStream.range(0, count).toArray();
  }

  private ScriptedGenerator.Submission only() {
    assertThat(worker.generator.submissions).hasSize(1);
    return worker.generator.last();
  }

  private int alone() {
    return only().request.scheduling().alone();
  }

  @Test
  void shouldCountNothingAgainstAPromptAtItsFirstCrash() {
    worker.send(Harness.prompt("p").build());
    crash("engine.attempts", "1", "max.crash.attempts", "1");
    assertThat(alone()).isZero();
    only().done("4");
    worker.tick();
    assertThat(worker.completions()).hasSize(1);
    assertThat(worker.deadLetters()).isEmpty();
  }

  @Test
  void shouldRunAPromptAloneAfterTwoCrashesAtOnePoint() {
    worker.send(Harness.prompt("p").build());
    crash();
    crash();
    assertThat(alone()).isEqualTo(2 * PAST - 1);
    assertThat(worker.count("millrace.prompts.quarantined")).isEqualTo(1);
  }

  @Test
  void shouldNotSuspectAPromptThatGotOnBetweenTwoCrashes() {
    worker.send(Harness.prompt("p").build());
    crash();
    only().delta("a", tokens(PAST + 16));
    crash();
    assertThat(only().request.resume()).hasSize(PAST + 16);
    assertThat(alone()).isZero();
  }

  @Test
  void shouldSuspectAPromptThatDidNotGetPastTheCrash() {
    worker.send(Harness.prompt("p").build());
    only().delta("a", tokens(100));
    crash();
    only().delta("a", tokens(PAST - 1));
    crash();
    assertThat(alone()).isPositive();
  }

  @Test
  void shouldSetAPromptAsideThatCrashesTheWorkerAgainAndAgainAlone() {
    worker.send(Harness.prompt("p").build());
    for (int i = 0; i < 4; i++) {
      crash();
      assertThat(worker.deadLetters()).isEmpty();
    }
    crash();
    assertThat(worker.generator.submissions).isEmpty();
    assertThat(worker.deadLetters())
        .extracting(
            letter -> new String(letter.headers().lastHeader(DeadLetters.REASON).value(), UTF_8))
        .containsExactly("CRASHED");
    worker.tick();
    assertThat(worker.stored(InFlightStore.PROMPTS)).isZero();
    assertThat(worker.gate.kept()).isZero();
  }

  @Test
  void shouldCountTheCrashesThatAreAllowed() {
    worker.send(Harness.prompt("p").build());
    crash("max.crash.attempts", "1");
    crash("max.crash.attempts", "1");
    assertThat(worker.deadLetters()).isEmpty();
    crash("max.crash.attempts", "1");
    assertThat(worker.deadLetters()).hasSize(1);
  }

  @Test
  void shouldClearASuspectThatGotPastThePoint() {
    worker.send(Harness.prompt("p").build());
    crash();
    crash();
    only().delta("a", tokens(PAST));
    crash();
    assertThat(alone()).isZero();
    crash();
    crash();
    assertThat(alone()).as("suspected anew").isPositive();
  }

  @Test
  void shouldNotClearASuspectThatGotOnLessThanACrashCanHaveCost() {
    worker.send(Harness.prompt("p").build());
    crash();
    crash();
    // More than is saved at a time, and less than the engine may have been ahead at the crash.
    only().delta("a", tokens(40));
    worker.tick();
    worker.tick();
    crash();
    assertThat(only().request.resume()).hasSize(40);
    assertThat(alone()).as("it has not shown that it gets past the crash").isPositive();
    crash();
    crash();
    assertThat(worker.deadLetters()).as("five crashes, three of them alone").hasSize(1);
  }

  @Test
  void shouldTakeTwiceWhatIsSavedForPastTheCrashWhereTheEngineMayGoAnyFurther() {
    String[] settings = {"progress.ahead.tokens", "0"};
    worker.send(Harness.prompt("p").build());
    crash(settings);
    crash(settings);
    only().delta("a", tokens(33));
    crash(settings);
    assertThat(alone()).isZero();
  }

  @Test
  void shouldHoldACrashAgainstNobodyWhoPausedWhileASuspectRanAlone() {
    worker.send(Harness.prompt("suspect").build());
    crash();
    crash();
    worker.send(Harness.prompt("other").build());
    crash();
    crash();
    assertThat(only().request.id()).isEqualTo("suspect");
    only().done("4");
    next("other");
    assertThat(worker.generator.submissions)
        .filteredOn(s -> s.request.id().equals("other"))
        .allSatisfy(s -> assertThat(s.request.scheduling().alone()).isZero())
        .hasSize(1);
  }

  @Test
  void shouldRunOneSuspectAtATimeAndNothingElseBesides() {
    worker.send(Harness.prompt("a").build());
    worker.send(Harness.prompt("b").build());
    crash();
    crash();
    worker.send(Harness.prompt("fresh").build());
    worker.advance(Duration.ofSeconds(4));
    assertThat(only().request.id()).isEqualTo("a");
    only().delta("x", tokens(PAST));
    worker.advance(PromptProcessor.TICK);
    assertThat(worker.generator.submissions).as("before it is durable that a is clear").hasSize(1);
    next("b");
    assertThat(worker.generator.submissions).hasSize(2);
    worker.generator.last().done("4");
    next("fresh");
    assertThat(worker.generator.submissions).hasSize(3);
  }

  @ParameterizedTest
  @CsvSource({
    "at_least_once, 0",
    "at_least_once, 2",
    "exactly_once_v2, 0",
    "exactly_once_v2, 2",
  })
  void shouldSetAPromptAsideThatCrashesTheWorkerBeforeItsIntakeIsCommitted(
      String guarantee, int turnsBefore) {
    String[] settings = {"kafka.processing.guarantee", guarantee};
    int crashes = 0;
    boolean committed = false;
    worker =
        started(Harness.successor(new Harness(OpenTelemetry.noop(), Map.of(), settings).stores()));
    while (crashes < 20) {
      for (int turn = 0; turn < turnsBefore; turn++) {
        worker.tick();
      }
      Map<String, Map<Bytes, byte[]>> before = worker.stores();
      if (!committed) {
        worker.send(Harness.prompt("poison").build());
        committed = worker.generator.submissions.isEmpty();
      }
      if (worker.generator.submissions.isEmpty()) {
        worker.tick();
        worker.tick();
        before = worker.stores();
      }
      if (worker.generator.submissions.isEmpty()) {
        break;
      }
      crashes++;
      worker = started(Harness.successor(before, settings));
    }
    assertThat(worker.deadLetters()).as("after %d crashes", crashes).hasSize(1);
    assertThat(crashes).isLessThanOrEqualTo(6);
  }

  @Test
  void shouldNotSetAnInnocentSuspectAsideForWhatAnotherDoes() {
    worker.send(Harness.prompt("innocent").build());
    crash();
    crash();
    assertThat(only().request.id()).isEqualTo("innocent");
    worker.send(Harness.prompt("poison").build());
    List<String> aside = new ArrayList<>();
    for (int life = 0; life < 12 && aside.isEmpty(); life++) {
      for (int turn = 0; turn < 100 && !has("poison"); turn++) {
        if (has("innocent")) {
          // It is slow, but gets on.
          worker.generator.last().delta("x", turn);
        }
        worker.advance(Duration.ofMillis(50));
        worker.tick();
      }
      worker.deadLetters().forEach(letter -> aside.add(new String(letter.key(), UTF_8)));
      if (aside.isEmpty()) {
        assertThat(has("poison")).isTrue();
        crash();
      }
    }
    assertThat(aside).containsExactly("poison");
  }

  private boolean has(String id) {
    return worker.generator.submissions.stream().anyMatch(s -> s.request.id().equals(id));
  }

  @Test
  void shouldNotCountACrashAgainstASuspectThatWaitsForALaterTry() {
    worker.send(Harness.prompt("p").build());
    String[] settings = {"max.crash.attempts", "1"};
    crash(settings);
    crash(settings);
    worker.generator.last().failed(Failure.ENGINE, "no");
    crash(settings);
    assertThat(worker.deadLetters()).isEmpty();
    assertThat(alone()).isPositive();
  }

  @Test
  void shouldNotCountATaskThatTheSameWorkerGotBackAsACrash() {
    worker.send(Harness.prompt("p").build());
    for (int i = 0; i < 3; i++) {
      worker.tick();
      worker = started(worker.revived());
      worker.tick();
      assertThat(alone()).isZero();
    }
  }

  @Test
  void shouldRunASuspectAgainWhoseTaskTheWorkerGotBack() {
    worker.send(Harness.prompt("p").build());
    crash();
    crash();
    worker = started(worker.revived());
    worker.tick();
    assertThat(alone()).isPositive();
  }

  @Test
  void shouldLetOthersInOnlyWhenItIsDurableThatASuspectIsClear() {
    String[] settings = {"window.prompts", "1"};
    worker.send(Harness.prompt("suspect").build());
    crash(settings);
    crash(settings);
    // The second is one of those that need not wait for their own note.
    worker.send(Harness.prompt("fresh-1").build());
    worker.send(Harness.prompt("fresh-2").build());
    worker.advance(Duration.ofSeconds(4));
    only().delta("x", tokens(PAST));
    worker.advance(Duration.ofMillis(200));
    assertThat(worker.generator.submissions).as("before it is durable").hasSize(1);
    worker.advance(Duration.ofMillis(200));
    assertThat(worker.generator.submissions).hasSizeGreaterThan(1);
  }

  @Test
  void shouldSubmitNothingBeforeItIsDurableThatATaskStayed() {
    worker.send(Harness.prompt("p").build());
    only().failed(Failure.ENGINE, "no");
    worker.tick();
    worker.advance(Duration.ofMillis(470));
    // In this turn its time has come.
    worker.handOver();
    worker.advance(PromptProcessor.TICK);
    assertThat(worker.generator.submissions).as("before the commit").hasSize(1);
    worker.advance(PromptProcessor.TICK);
    assertThat(worker.generator.submissions).hasSize(2);
  }

  @Test
  void shouldMakeSuspectsOfAFewWhenTwoCrashesFollowOneAnother() {
    int prompts = 3 * Quarantine.WATCHED;
    for (int i = 0; i < prompts; i++) {
      worker.send(Harness.prompt("p-" + i).build());
    }
    crash();
    assertThat(worker.generator.submissions).hasSize(Quarantine.WATCHED);
    crash();
    assertThat(worker.generator.submissions).as("a suspect").hasSize(1);
    for (int i = 0; i < Quarantine.WATCHED; i++) {
      worker.generator.last().delta("x", tokens(PAST));
      for (int turn = 0; turn < 6; turn++) {
        worker.advance(Duration.ofMillis(100));
      }
    }
    assertThat(worker.count("millrace.prompts.quarantined")).isEqualTo(Quarantine.WATCHED);
    assertThat(worker.generator.submissions).hasSize(2 * Quarantine.WATCHED);
  }

  @Test
  void shouldLetTheNextOfThoseThatWereThereInAsTheyGetOn() {
    for (int i = 0; i < Quarantine.WATCHED + 1; i++) {
      worker.send(Harness.prompt("p-" + i).build());
    }
    crash();
    worker.advance(Duration.ofSeconds(1));
    assertThat(worker.generator.submissions).hasSize(Quarantine.WATCHED);
    worker.generator.submissions.getFirst().delta("x", tokens(PAST));
    worker.tick();
    worker.advance(Duration.ofSeconds(1));
    worker.tick();
    assertThat(worker.generator.submissions).hasSize(Quarantine.WATCHED + 1);
  }

  @Test
  void shouldLetTheNextSuspectInHoweverTheLastOneEnded() {
    for (String id : List.of("done", "failed", "cancelled", "refused", "last")) {
      worker.send(Harness.prompt(id).build());
    }
    crash("engine.attempts", "1");
    crash("engine.attempts", "1");
    worker.generator.last().done("4");
    next("failed");
    worker.generator.last().failed(Failure.ENGINE, "no");
    next("cancelled");
    worker.cancel("cancelled");
    worker.generator.last().done(FinishReason.CANCELLED, "");
    next("refused");
    worker.generator.last().failed(Failure.UNSUPPORTED, "no");
    next("last");
  }

  private void next(String id) {
    for (int turn = 0; turn < 10; turn++) {
      worker.advance(Duration.ofMillis(100));
    }
    assertThat(worker.generator.last().request.id()).isEqualTo(id);
  }

  @Test
  void shouldNotCountATaskThatWasHandedOverAsACrash() {
    worker.send(Harness.prompt("p").build());
    worker.generator.last().delta("a", 1, 2, 3);
    for (int i = 0; i < 5; i++) {
      worker.handOver();
      worker = started(worker.successor());
      worker.tick();
      assertThat(alone()).isZero();
      assertThat(only().request.resume()).as("saved with the last commit").containsExactly(1, 2, 3);
    }
  }

  @Test
  void shouldCountACrashAfterATaskStayedAfterAll() {
    worker.send(Harness.prompt("p").build());
    for (int i = 0; i < 2; i++) {
      worker.handOver();
      worker.tick();
      worker.tick();
      worker = started(worker.successor());
      worker.tick();
    }
    assertThat(alone()).isPositive();
  }

  @ParameterizedTest
  @ValueSource(strings = {"at_least_once", "exactly_once_v2"})
  void shouldSubmitAfterACrashOnlyWhenTheCountIsDurable(String guarantee) {
    worker = started(new Harness("kafka.processing.guarantee", guarantee));
    worker.send(Harness.prompt("p").build());
    worker.tick();
    worker = started(worker.successor("kafka.processing.guarantee", guarantee));
    worker.advance(PromptProcessor.TICK);
    assertThat(worker.generator.submissions).as("before the first commit").isEmpty();
    worker.advance(PromptProcessor.TICK);
    assertThat(worker.generator.submissions).hasSize(1);
  }

  @Test
  void shouldStillExpireASuspectThatWaitsForItsTurn() {
    worker.send(Harness.prompt("a").build());
    worker.send(Harness.prompt("b").setDeadline(Harness.START.plus(Duration.ofSeconds(8))).build());
    crash();
    crash();
    worker.advance(Duration.ofSeconds(9));
    assertThat(worker.completions())
        .extracting(r -> r.value().getPromptId() + r.value().getFinishReason())
        .containsExactly("b" + CompletionFinish.EXPIRED);
    assertThat(worker.gate.running()).isEqualTo(1);
  }

  @Test
  void shouldTellTheLastChunkOfAPromptThatEndsWaitingFromThoseOfItsEarlierAttempts() {
    worker.send(Harness.prompt("a").build());
    worker.send(
        Harness.prompt("b")
            .setStream(true)
            .setDeadline(Harness.START.plus(Duration.ofSeconds(8)))
            .build());
    crash();
    crash();
    worker.advance(Duration.ofSeconds(9));
    worker.tick();
    int attempt = worker.completions().getFirst().value().getAttempt();
    assertThat(attempt).as("those of its two lives are taken").isGreaterThan(2);
    assertThat(worker.chunks())
        .extracting(r -> r.value().getAttempt() + "/" + r.value().getSequence())
        .containsExactly(attempt + "/0");
  }

  @Test
  void shouldGoOnFromTheSameTokensAfterEveryCrash() {
    worker.send(Harness.prompt("p").build());
    int[] all = tokens(48);
    only().delta("x", Arrays.copyOf(all, 40));
    worker.tick();
    crash();
    assertThat(only().request.resume()).isEqualTo(Arrays.copyOf(all, 40));
    only().delta("", 40, 41);
    crash();
    assertThat(only().request.resume()).as("two were not saved").hasSize(40);
    assertThat(worker.count("millrace.prompts.retried")).isEqualTo(1);
  }
}
