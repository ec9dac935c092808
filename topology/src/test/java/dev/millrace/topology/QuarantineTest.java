package dev.millrace.topology;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;

import dev.millrace.inference.api.FinishReason;
import dev.millrace.inference.api.GenerateEvent.Failure;
import dev.millrace.schemas.CompletionFinish;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.stream.IntStream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** What the crash of a worker means for the prompts that it had in flight. */
class QuarantineTest {
  /** Past the point of a crash: as many tokens as may have been lost. */
  private static final int PAST = 2 * 16 + 1;

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
    assertThat(alone()).isEqualTo(PAST);
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
  void shouldHoldACrashAgainstNobodyWhoPausedWhileASuspectRanAlone() {
    worker.send(Harness.prompt("suspect").build());
    crash();
    crash();
    worker.send(Harness.prompt("other").build());
    crash();
    crash();
    worker.advance(Duration.ofSeconds(1));
    assertThat(worker.generator.submissions)
        .filteredOn(s -> s.request.id().equals("other"))
        .allSatisfy(s -> assertThat(s.request.scheduling().alone()).isZero())
        .hasSize(1);
  }

  @Test
  void shouldRunOneSuspectAtATimeAndGiveTheOthersAsMuchTime() {
    worker.send(Harness.prompt("a").build());
    worker.send(Harness.prompt("b").build());
    crash();
    crash();
    assertThat(only().request.id()).isEqualTo("a");
    worker.advance(Duration.ofSeconds(4));
    only().delta("x", tokens(PAST));
    worker.tick();
    worker.advance(Duration.ofSeconds(3));
    assertThat(worker.generator.submissions).hasSize(1);
    worker.advance(Duration.ofSeconds(2));
    worker.tick();
    assertThat(worker.generator.last().request.id()).isEqualTo("b");
    assertThat(worker.generator.submissions).hasSize(2);
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
    worker.tick();
    worker.advance(Duration.ofSeconds(10));
    worker.tick();
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
