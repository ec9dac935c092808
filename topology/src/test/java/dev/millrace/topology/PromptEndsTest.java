package dev.millrace.topology;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;

import dev.millrace.inference.api.GenerateEvent.Failure;
import dev.millrace.schemas.PromptSampling;
import dev.millrace.topology.DeadLetters.Reason;
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
    harness.assertNothingKept();
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
    harness.assertNothingKept();
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
    harness.assertNothingKept();
  }

  @Test
  void shouldLetNoPromptForgeALogLine() {
    assertThat(Printable.of("a\nERROR b\u2028\u001b[0m")).isEqualTo("a ERROR b  [0m");
    assertThat(Printable.of("x".repeat(5000))).hasSizeLessThan(400);
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
    harness.assertNothingKept();
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
    harness.assertNothingKept();
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
