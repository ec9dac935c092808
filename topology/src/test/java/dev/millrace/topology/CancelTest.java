package dev.millrace.topology;

import static org.assertj.core.api.Assertions.assertThat;

import dev.millrace.inference.api.FinishReason;
import dev.millrace.inference.api.GenerateEvent.Failure;
import dev.millrace.schemas.CompletionFinish;
import dev.millrace.schemas.PromptEvent;
import java.time.Duration;
import java.util.List;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;

/** Cancels, deadlines and ids that come twice: what a prompt's sender wishes and what it gets. */
class CancelTest {
  private Harness harness = new Harness();

  @AfterEach
  void close() {
    harness.close();
  }

  private void restart(String... settings) {
    harness.close();
    harness = new Harness(settings);
  }

  private static PromptEvent.Builder due(String id, Duration after) {
    return Harness.prompt(id).setDeadline(Harness.START.plus(after));
  }

  @Test
  void shouldAnswerADuplicateOnce() {
    harness.send(Harness.prompt("p1").build());
    harness.send(Harness.prompt("p1").build());
    assertThat(harness.generator.submissions).as("in flight").hasSize(1);
    harness.generator.last().done("4");
    harness.tick();
    harness.send(Harness.prompt("p1").build());
    harness.tick();
    harness.send(Harness.prompt("p1").build());
    assertThat(harness.generator.submissions).as("answered").hasSize(1);
    assertThat(harness.count("millrace.prompts.duplicate")).isEqualTo(3);
    try (Harness next = harness.successor()) {
      next.tick();
      next.send(Harness.prompt("p1").build());
      assertThat(next.generator.submissions).as("answered by an earlier worker").isEmpty();
    }
  }

  @Test
  void shouldAnswerAnIdAgainAfterTheRetention() {
    restart("dedup.retention", "10s");
    harness.send(Harness.prompt("p1").build());
    harness.generator.last().done("4");
    harness.tick();
    harness.tick();
    harness.advance(Duration.ofSeconds(12));
    assertThat(harness.stored(InFlightStore.SEEN)).isZero();
    harness.send(Harness.prompt("p1").build());
    assertThat(harness.generator.submissions).hasSize(2);
  }

  @Test
  void shouldRememberNoMoreIdsThanAllowed() {
    restart("dedup.max.ids", "2");
    for (String id : List.of("a", "b", "c")) {
      harness.send(Harness.prompt(id).build());
      harness.generator.last().done("4");
      harness.tick();
      harness.tick();
    }
    harness.advance(Duration.ofSeconds(2));
    assertThat(harness.stored(InFlightStore.SEEN)).isEqualTo(2);
    harness.send(Harness.prompt("a").build());
    harness.send(Harness.prompt("c").build());
    assertThat(harness.generator.submissions).hasSize(4);
  }

  @Test
  void shouldCancelARunningPrompt() {
    harness.send(Harness.prompt("p1").build());
    harness.cancel("p1");
    assertThat(harness.generator.last().cancelled).isTrue();
    harness.generator.last().done(FinishReason.CANCELLED, "so far");
    harness.tick();
    assertThat(harness.completions())
        .extracting(r -> r.value().getFinishReason() + ":" + r.value().getContent())
        .containsExactly("CANCELLED:so far");
    harness.assertNothingKept();
    assertThat(harness.stored(InFlightStore.SEEN)).as("the wish is fulfilled").isEqualTo(1);
  }

  @Test
  void shouldCancelAPromptThatComesAfterItsCancelEvent() {
    harness.cancel("p1");
    try (Harness next = harness.successor()) {
      next.tick();
      next.send(Harness.prompt("p1").build());
      next.tick();
      assertThat(next.generator.submissions).isEmpty();
      assertThat(next.completions())
          .extracting(r -> r.value().getFinishReason())
          .containsExactly(CompletionFinish.CANCELLED);
    }
  }

  @Test
  void shouldStillCancelWhenTheTaskMovesBeforeTheEngineLetsGo() {
    harness.send(Harness.prompt("p1").build());
    harness.cancel("p1");
    try (Harness next = harness.successor()) {
      next.tick();
      assertThat(next.generator.submissions).isEmpty();
      assertThat(next.completions())
          .extracting(r -> r.value().getFinishReason())
          .containsExactly(CompletionFinish.CANCELLED);
    }
  }

  @Test
  void shouldNotCancelACorrectedPromptForTheOneThatBecameADeadLetter() {
    harness.send(Harness.prompt("p1").build());
    harness.cancel("p1");
    harness.generator.last().failed(Failure.INVALID_REQUEST, "no");
    harness.advance(PromptProcessor.TICK);
    assertThat(harness.deadLetters()).hasSize(1);
    harness.send(Harness.prompt("p1").build());
    assertThat(harness.generator.submissions).hasSize(2);
    assertThat(harness.completions()).isEmpty();

    // A cancel of its own is not forgotten with the end of the other.
    harness.cancel("p1");
    harness.tick();
    try (Harness next = harness.successor()) {
      next.tick();
      assertThat(next.generator.submissions).isEmpty();
      assertThat(next.completions())
          .extracting(r -> r.value().getFinishReason())
          .containsExactly(CompletionFinish.CANCELLED);
    }
  }

  @Test
  void shouldLetAFinishedAnswerWinOverItsCancel() {
    harness.send(Harness.prompt("p1").build());
    harness.cancel("p1");
    harness.generator.last().done("4");
    harness.tick();
    assertThat(harness.completions())
        .extracting(r -> r.value().getFinishReason())
        .containsExactly(CompletionFinish.STOP);
  }

  @Test
  void shouldEndACancelledPromptWithoutAnEngineThatHangs() {
    harness.send(Harness.prompt("p1").build());
    harness.cancel("p1");
    harness.advance(Duration.ofSeconds(1));
    assertThat(harness.completions()).isEmpty();
    harness.advance(Duration.ofSeconds(2));
    assertThat(harness.completions()).hasSize(1);
    harness.generator.last().done(FinishReason.CANCELLED, "late");
    harness.assertNothingKept();
    assertThat(harness.completions()).isEmpty();
  }

  @Test
  void shouldExpireAPromptThatComesTooLate() {
    harness.advance(Duration.ofSeconds(5));
    harness.send(due("p1", Duration.ofSeconds(4)).build());
    assertThat(harness.generator.submissions).isEmpty();
    assertThat(harness.completions())
        .extracting(r -> r.value().getFinishReason())
        .containsExactly(CompletionFinish.EXPIRED);
    harness.assertNothingKept();
  }

  @Test
  void shouldExpireAPromptWhoseDeadlinePassesWhileItRuns() {
    harness.send(due("p1", Duration.ofSeconds(4)).build());
    harness.advance(Duration.ofSeconds(3));
    assertThat(harness.generator.last().cancelled).isFalse();
    harness.advance(Duration.ofSeconds(1));
    assertThat(harness.generator.last().cancelled).isTrue();
    harness.generator.last().done(FinishReason.CANCELLED, "so far");
    harness.tick();
    assertThat(harness.completions())
        .extracting(r -> r.value().getFinishReason() + ":" + r.value().getContent())
        .containsExactly("EXPIRED:so far");
    harness.assertNothingKept();
  }

  @Test
  void shouldExpireAnAnswerThatIsReadyTooLate() {
    harness.send(due("p1", Duration.ofSeconds(4)).build());
    harness.advance(Duration.ofMillis(3_990));
    harness.generator.last().done("whole");
    harness.advance(Duration.ofMillis(20));
    assertThat(harness.completions())
        .extracting(r -> r.value().getFinishReason() + ":" + r.value().getContent())
        .containsExactly("EXPIRED:whole");
    harness.assertNothingKept();
  }

  @Test
  void shouldExpireAPromptThatWaitsForAnotherTry() {
    restart("engine.backoff", "30s");
    harness.send(due("p1", Duration.ofSeconds(4)).build());
    harness.generator.last().failed(Failure.ENGINE, "no");
    harness.tick();
    harness.advance(Duration.ofSeconds(5));
    assertThat(harness.completions())
        .extracting(r -> r.value().getFinishReason())
        .containsExactly(CompletionFinish.EXPIRED);
    harness.assertNothingKept();
  }

  @Test
  void shouldNotCountARestoredPromptThatHasExpiredAsATry() {
    harness.send(due("p1", Duration.ofSeconds(4)).build());
    harness.tick();
    try (Harness next = harness.successor()) {
      next.advance(Duration.ofSeconds(5));
      assertThat(next.completions())
          .extracting(r -> r.value().getFinishReason() + " " + r.value().getAttempt())
          .containsExactly("EXPIRED 2");
      assertThat(next.count("millrace.prompts.retried")).isZero();
      next.assertNothingKept();
    }
  }

  @Test
  void shouldCancelAPromptThatWaitsForAnotherTry() {
    restart("engine.backoff", "30s");
    harness.send(Harness.prompt("p1").build());
    harness.generator.last().failed(Failure.ENGINE, "no");
    harness.tick();
    harness.cancel("p1");
    assertThat(harness.completions())
        .extracting(r -> r.value().getFinishReason())
        .containsExactly(CompletionFinish.CANCELLED);
    harness.assertNothingKept();
  }

  @Test
  void shouldForgetTheOldestCancelWhereThereAreTooMany() {
    restart("dedup.max.ids", "0");
    int most = 10_000;
    for (int i = 0; i <= most; i++) {
      harness.cancel("p" + i);
    }
    assertThat(harness.stored(InFlightStore.SEEN)).isEqualTo(most);
    harness.send(Harness.prompt("p0").build());
    harness.send(Harness.prompt("p1").build());
    assertThat(harness.generator.submissions).extracting(s -> s.request.id()).containsExactly("p0");
  }

  @Test
  void shouldForgetCancelsAfterTheRetentionInTheOrderInWhichTheyCame() {
    restart("dedup.retention", "10s");
    harness.cancel("a");
    harness.cancel("b");
    harness.advance(Duration.ofSeconds(6));
    harness.cancel("a");
    try (Harness next = harness.successor("dedup.retention", "10s")) {
      next.advance(Duration.ofSeconds(11));
      next.advance(Duration.ofSeconds(1));
      assertThat(next.stored(InFlightStore.SEEN)).as("a was renewed").isEqualTo(1);
      next.advance(Duration.ofSeconds(5));
      assertThat(next.stored(InFlightStore.SEEN)).isZero();
    }
  }
}
