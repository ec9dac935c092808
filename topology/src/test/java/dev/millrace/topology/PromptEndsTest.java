package dev.millrace.topology;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;

import dev.millrace.inference.api.FinishReason;
import dev.millrace.inference.api.GenerateEvent.Failure;
import dev.millrace.schemas.CompletionFinish;
import dev.millrace.schemas.PromptEvent;
import dev.millrace.schemas.PromptSampling;
import dev.millrace.topology.DeadLetters.Reason;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeaders;
import org.apache.kafka.common.record.TimestampType;
import org.apache.kafka.streams.test.TestRecord;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;

/** Every way in which a prompt can end other than well: each ends in exactly one. */
class PromptEndsTest {
  private Harness harness = new Harness();

  @AfterEach
  void close() {
    SwitchableSerde.readsFail = false;
    SwitchableSerde.writesFail = false;
    harness.close();
  }

  private void restart(String... settings) {
    harness.close();
    harness = new Harness(settings);
  }

  private TestRecord<byte[], byte[]> onlyDeadLetter(Reason reason) {
    List<TestRecord<byte[], byte[]>> letters = harness.deadLetters();
    assertThat(letters).hasSize(1);
    assertThat(header(letters.getFirst(), DeadLetters.REASON)).isEqualTo(reason.name());
    assertThat(harness.completions()).isEmpty();
    return letters.getFirst();
  }

  private static String header(TestRecord<byte[], byte[]> record, String name) {
    return new String(record.headers().lastHeader(name).value(), UTF_8);
  }

  private void assertNothingKept() {
    harness.tick();
    harness.tick();
    assertThat(harness.gate.kept()).isZero();
    assertThat(harness.gate.running()).isZero();
    assertThat(harness.stored(InFlightStore.PROMPTS)).isZero();
    assertThat(harness.stored(InFlightStore.PROGRESS)).isZero();
  }

  @Test
  void shouldSetPoisonAsideWithItsBytesAndHeaders() {
    byte[] poison = {'p', 0, -1, 7};
    harness.send("k".getBytes(UTF_8), poison, Map.of("theirs", "x"));
    harness.send(Harness.prompt("p1").build());

    TestRecord<byte[], byte[]> letter = onlyDeadLetter(Reason.BAD_RECORD);
    assertThat(letter.key()).isEqualTo("k".getBytes(UTF_8));
    assertThat(letter.value()).isEqualTo(poison);
    assertThat(letter.headers().toArray()).extracting(Header::key).first().isEqualTo("theirs");
    assertThat(header(letter, DeadLetters.EXCEPTION)).endsWith("BadRecordException");
    assertThat(header(letter, DeadLetters.MESSAGE)).contains("0x00");
    assertThat(header(letter, DeadLetters.STACKTRACE)).contains("BadRecordException");
    assertThat(header(letter, DeadLetters.TOPIC)).isEqualTo("millrace.prompts");
    assertThat(header(letter, DeadLetters.PARTITION)).isEqualTo("0");
    assertThat(header(letter, DeadLetters.OFFSET)).isEqualTo("0");
    assertThat(harness.generator.submissions).as("the next prompt").hasSize(1);
  }

  @Test
  void shouldSetARecordWithoutAValueAside() {
    harness.send(null, null, Map.of());
    assertThat(onlyDeadLetter(Reason.NO_VALUE).value()).isNull();
    assertNothingKept();
  }

  @Test
  void shouldSetAnOversizedRecordAsideWithoutWhatNoTopicTakes() {
    restart("max.prompt.bytes", "4096");
    harness.send("k".getBytes(UTF_8), new byte[5000], Map.of());
    TestRecord<byte[], byte[]> letter = onlyDeadLetter(Reason.RECORD_TOO_LARGE);
    assertThat(letter.value()).isNull();
    assertThat(letter.key()).isEqualTo("k".getBytes(UTF_8));
    assertThat(header(letter, DeadLetters.OMITTED)).isEqualTo("5001");
  }

  @Test
  void shouldSetARecordWithTooManyHeadersAside() {
    restart("max.prompt.bytes", "4096");
    harness.send(
        null, harness.bytes(Harness.prompt("p1").build()), Map.of("bomb", "x".repeat(9999)));
    TestRecord<byte[], byte[]> letter = onlyDeadLetter(Reason.RECORD_TOO_LARGE);
    assertThat(letter.headers().lastHeader("bomb")).isNull();
  }

  @Test
  void shouldRefuseAPromptForAnotherModel() {
    harness.send(Harness.prompt("p1").setModel("other").build());
    assertThat(header(onlyDeadLetter(Reason.MODEL_NOT_SERVED), DeadLetters.MESSAGE))
        .contains("'other'", "'scripted'");
  }

  @Test
  void shouldRefuseAnImpossiblePrompt() {
    harness.send(
        Harness.prompt("p1")
            .setSampling(PromptSampling.newBuilder().setTemperature(-1.0).build())
            .build());
    assertThat(header(onlyDeadLetter(Reason.INVALID_REQUEST), DeadLetters.MESSAGE))
        .contains("temperature", "p1");
    assertNothingKept();
  }

  @Test
  void shouldTakeACorrectedPromptAfterItsDeadLetter() {
    harness.send(Harness.prompt("p1").setModel("other").build());
    harness.tick();
    harness.send(Harness.prompt("p1").build());
    assertThat(harness.generator.submissions).hasSize(1);
  }

  @Test
  void shouldTakeACorrectedPromptBeforeItsDeadLetterIsAcknowledged() {
    harness.send(Harness.prompt("p1").build());
    harness.generator.last().failed(Failure.UNSUPPORTED, "no way");
    harness.tick();
    assertThat(harness.gate.kept()).isEqualTo(1);
    harness.send(Harness.prompt("p1").setPriority(1).build());
    assertThat(harness.generator.submissions).hasSize(2);
    harness.generator.last().done("4");
    harness.tick();
    assertThat(harness.completions()).hasSize(1);
    assertNothingKept();
  }

  @Test
  void shouldLetNoPromptForgeALogLine() {
    assertThat(Printable.of("a\nERROR b\u2028\u001b[0m")).isEqualTo("a ERROR b  [0m");
    assertThat(Printable.of("x".repeat(5000))).hasSizeLessThan(400);
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
    assertNothingKept();
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
    assertNothingKept();
    assertThat(harness.completions()).isEmpty();
  }

  private static PromptEvent.Builder due(String id, Duration after) {
    return Harness.prompt(id).setDeadline(Harness.START.plus(after));
  }

  @Test
  void shouldExpireAPromptThatComesTooLate() {
    harness.advance(Duration.ofSeconds(5));
    harness.send(due("p1", Duration.ofSeconds(4)).build());
    assertThat(harness.generator.submissions).isEmpty();
    assertThat(harness.completions())
        .extracting(r -> r.value().getFinishReason())
        .containsExactly(CompletionFinish.EXPIRED);
    assertNothingKept();
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
    assertNothingKept();
  }

  @Test
  void shouldTryAgainWhatTheEngineFailedAndThenSetItAside() {
    restart("engine.attempts", "3", "engine.backoff", "1s");
    harness.send(Harness.prompt("p1").build());
    harness.generator.last().delta("a", 1, 2);
    harness.generator.last().failed(Failure.ENGINE, "first");
    harness.tick();
    harness.advance(Duration.ofMillis(900));
    assertThat(harness.generator.submissions).hasSize(1);
    harness.advance(Duration.ofMillis(100));
    assertThat(harness.generator.submissions).hasSize(2);
    assertThat(harness.generator.last().request.resume()).containsExactly(1, 2);
    harness.generator.last().failed(Failure.ENGINE, "second");
    harness.tick();
    harness.advance(Duration.ofMillis(1900));
    assertThat(harness.generator.submissions).as("the pause doubles").hasSize(2);
    harness.advance(Duration.ofMillis(200));
    harness.generator.last().failed(Failure.ENGINE, "third");
    harness.tick();
    TestRecord<byte[], byte[]> letter = onlyDeadLetter(Reason.ENGINE_FAILED);
    assertThat(letter.value()).isEqualTo(harness.bytes(Harness.prompt("p1").build()));
    assertThat(header(letter, DeadLetters.MESSAGE)).contains("3 times", "third");
    assertNothingKept();
  }

  @Test
  void shouldCountTheEnginesFailuresAcrossARestart() {
    restart("engine.attempts", "2");
    harness.send(Harness.prompt("p1").build());
    harness.generator.last().failed(Failure.ENGINE, "first");
    harness.tick();
    harness.advance(Duration.ofSeconds(1));
    try (Harness next = harness.successor("engine.attempts", "2")) {
      next.tick();
      next.generator.last().failed(Failure.ENGINE, "second");
      next.tick();
      assertThat(next.deadLetters()).hasSize(1);
    }
  }

  @Test
  void shouldNotCountAClosedGeneratorAgainstThePrompt() {
    restart("engine.attempts", "1");
    harness.send(Harness.prompt("p1").build());
    harness.generator.last().failed(Failure.CLOSED, "closing");
    harness.tick();
    harness.advance(Duration.ofSeconds(1));
    assertThat(harness.generator.submissions).hasSize(2);
    assertThat(harness.deadLetters()).isEmpty();
  }

  @Test
  void shouldForwardNothingWhenTheEngineIsDead() {
    restart("engine.attempts", "1");
    harness.send(Harness.prompt("p1").build());
    harness.generator.failure = "the device is lost";
    harness.generator.last().failed(Failure.ENGINE, "the device is lost");
    harness.tick();
    harness.advance(Duration.ofSeconds(1));
    assertThat(harness.deadLetters()).isEmpty();
    assertThat(harness.engineFailures).contains("the device is lost");
    assertThat(harness.stored(InFlightStore.PROMPTS)).isEqualTo(1);
  }

  @Test
  void shouldTryAgainWhenTheEngineThrows() {
    harness.generator.thrown = new IllegalStateException("told to throw");
    harness.send(Harness.prompt("p1").build());
    harness.generator.thrown = null;
    harness.advance(Duration.ofSeconds(1));
    assertThat(harness.generator.submissions).hasSize(1);
  }

  @Test
  void shouldSetAsideWhatTheEngineCanNeverAnswer() {
    for (Failure failure :
        List.of(Failure.INVALID_REQUEST, Failure.PROMPT_TOO_LONG, Failure.UNSUPPORTED)) {
      harness.send(Harness.prompt("p" + failure).build());
      harness.generator.last().failed(failure, "no way");
      harness.tick();
      assertThat(harness.deadLetters())
          .extracting(letter -> header(letter, DeadLetters.REASON))
          .containsExactly(failure.name());
    }
    assertThat(harness.generator.submissions).hasSize(3);
    assertNothingKept();
  }

  @Test
  void shouldSetAPromptAsideWhoseAnswerNoTopicTakes() {
    harness.limits.topicTakes("millrace.completions", 2000);
    harness.send(Harness.prompt("p1").build());
    harness.tick();
    harness.generator.last().done("x".repeat(2000));
    harness.tick();
    assertThat(onlyDeadLetter(Reason.ANSWER_TOO_LARGE).value())
        .isEqualTo(harness.bytes(Harness.prompt("p1").build()));
    assertNothingKept();
  }

  @Test
  void shouldSetARestoredOutcomeAsideThatTheTopicHasRefused() {
    harness.send(Harness.prompt("p1").build());
    harness.tick();
    harness.generator.last().done("x".repeat(2000));
    harness.tick();
    try (Harness next = harness.successor()) {
      next.limits.refused("millrace.completions", 2000);
      next.tick();
      assertThat(next.completions()).isEmpty();
      assertThat(next.deadLetters())
          .extracting(letter -> header(letter, DeadLetters.REASON))
          .containsExactly(Reason.ANSWER_TOO_LARGE.name());
      next.tick();
      assertThat(next.stored(InFlightStore.PROMPTS)).isZero();
    }
  }

  @Test
  void shouldKeepPromptsThatCannotBeReadWhileTheRegistryIsDown() {
    restart("serde.class", SwitchableSerde.class.getName());
    PromptEvent event = Harness.prompt("p1").build();
    byte[] bytes = harness.bytes(event);
    SwitchableSerde.readsFail = true;
    harness.send("p1".getBytes(UTF_8), bytes, Map.of());
    assertThat(harness.gate.open()).isFalse();
    assertThat(harness.stored(InFlightStore.PROMPTS)).isEqualTo(1);
    harness.advance(Duration.ofSeconds(5));
    assertThat(harness.deadLetters()).isEmpty();

    SwitchableSerde.readsFail = false;
    harness.advance(Duration.ofSeconds(1));
    assertThat(harness.gate.open()).isTrue();
    harness.generator.last().done("4");
    harness.tick();
    assertThat(harness.completions()).hasSize(1);
    assertNothingKept();
  }

  @Test
  void shouldAskARegistryThatIsDownOnceInAWhile() {
    restart("serde.class", SwitchableSerde.class.getName());
    byte[] unread = harness.bytes(Harness.prompt("unread").build());
    for (String id : List.of("a", "b", "c")) {
      harness.send(Harness.prompt(id).setStream(true).build());
    }
    SwitchableSerde.UNANSWERED.set(0);
    SwitchableSerde.readsFail = true;
    SwitchableSerde.writesFail = true;
    harness.generator.submissions.forEach(s -> s.done("4"));
    harness.tick();
    for (int i = 0; i < 5; i++) {
      harness.send(null, unread, Map.of());
    }
    assertThat(SwitchableSerde.UNANSWERED).hasValue(1);
    harness.advance(Duration.ofSeconds(1));
    assertThat(SwitchableSerde.UNANSWERED).hasValue(2);

    SwitchableSerde.readsFail = false;
    SwitchableSerde.writesFail = false;
    harness.advance(Duration.ofSeconds(1));
    assertThat(harness.completions()).hasSize(3);
    assertThat(harness.generator.submissions).hasSize(4);
    assertThat(harness.count("millrace.prompts.duplicate")).isEqualTo(4);
    harness.generator.last().done("4");
    assertNothingKept();
  }

  @Test
  void shouldKeepAnswersThatCannotBeWrittenWhileTheRegistryIsDown() {
    restart("serde.class", SwitchableSerde.class.getName());
    harness.send(Harness.prompt("p1").build());
    SwitchableSerde.writesFail = true;
    harness.generator.last().done("4");
    harness.tick();
    assertThat(harness.gate.open()).isFalse();
    assertThat(harness.deadLetters()).isEmpty();
    SwitchableSerde.writesFail = false;
    harness.advance(Duration.ofSeconds(1));
    assertThat(harness.completions()).hasSize(1);
    assertThat(harness.gate.open()).isTrue();
    assertNothingKept();
  }

  @Test
  void shouldCloseTheGateWhenTheWindowIsFull() {
    restart("window.prompts", "2");
    harness.send(Harness.prompt("a").build());
    assertThat(harness.gate.open()).isTrue();
    harness.send(Harness.prompt("b").build());
    assertThat(harness.gate.open()).isFalse();
    harness.generator.submissions.getFirst().done("4");
    harness.tick();
    assertThat(harness.gate.open()).as("an answer makes room before it is retired").isTrue();
  }

  @Test
  void shouldSaveEveryPromptsProgressWhenAsked() {
    harness.send(Harness.prompt("p1").build());
    harness.generator.last().delta("a", 1);
    harness.tick();
    harness.gate.save();
    assertThat(harness.gate.allSaved()).isFalse();
    harness.tick();
    assertThat(harness.stored(InFlightStore.PROGRESS)).isEqualTo(1);
    harness.tick();
    assertThat(harness.gate.allSaved()).isTrue();
  }

  @Test
  void shouldNotLoopOnAbsurdTimestamps() {
    var extractor = new WorkerTopology.ClampedTimestamps();
    long now = System.currentTimeMillis();
    for (long timestamp : new long[] {-1, Long.MIN_VALUE, Long.MAX_VALUE, now + 86_400_000}) {
      var record =
          new ConsumerRecord<Object, Object>(
              "t",
              0,
              0,
              timestamp,
              TimestampType.CREATE_TIME,
              0,
              0,
              "k",
              "v",
              new RecordHeaders(),
              Optional.empty());
      assertThat(extractor.extract(record, -1)).isBetween(0L, System.currentTimeMillis());
    }
  }
}
