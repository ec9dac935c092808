package dev.millrace.topology;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;

import dev.millrace.inference.api.GenerateEvent.Failure;
import dev.millrace.topology.DeadLetters.Reason;
import java.time.Instant;
import java.util.Arrays;
import java.util.HashMap;
import java.util.Map;
import java.util.Objects;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.Headers;
import org.apache.kafka.common.header.internals.RecordHeaders;
import org.apache.kafka.common.record.TimestampType;
import org.apache.kafka.streams.test.TestRecord;
import org.junit.jupiter.api.Test;

/** Dead letters as they are read back, and what a replay of them comes to. */
class DeadLetterTest {
  private static ConsumerRecord<byte[], byte[]> consumed(
      byte[] key, byte[] value, Headers headers) {
    return new ConsumerRecord<>(
        "millrace.dead-letters",
        3,
        17,
        1_000,
        TimestampType.CREATE_TIME,
        -1,
        -1,
        key,
        value,
        headers,
        java.util.Optional.empty());
  }

  private static DeadLetter only(Harness harness) {
    TestRecord<byte[], byte[]> letter = harness.deadLetters().getFirst();
    return Objects.requireNonNull(
        DeadLetter.read(consumed(letter.key(), letter.value(), letter.headers())));
  }

  private static Map<String, String> texts(Iterable<Header> headers) {
    Map<String, String> found = new HashMap<>();
    headers.forEach(h -> found.put(h.key(), new String(h.value(), UTF_8)));
    return found;
  }

  @Test
  void shouldReadWhatTheWorkerWrote() {
    try (Harness harness = new Harness()) {
      byte[] value = harness.bytes(Harness.prompt("p1").setModel("other").build());
      harness.send("k".getBytes(UTF_8), value, Map.of("theirs", "x"));
      DeadLetter letter = only(harness);
      assertThat(letter.reason()).isEqualTo(Reason.MODEL_NOT_SERVED.name());
      assertThat(letter.message()).contains("'other'");
      assertThat(letter.source()).isEqualTo("millrace.prompts");
      assertThat(letter.sourcePartition()).isZero();
      assertThat(letter.sourceOffset()).isZero();
      assertThat(letter.omitted()).isEqualTo(-1);
      ProducerRecord<byte[], byte[]> original = letter.original("elsewhere", 8);
      assertThat(original.topic()).isEqualTo("elsewhere");
      assertThat(original.partition()).as("as the key decides").isNull();
      assertThat(original.key()).isEqualTo("k".getBytes(UTF_8));
      assertThat(original.value()).isEqualTo(value);
      assertThat(texts(original.headers())).isEqualTo(Map.of("theirs", "x"));
    }
  }

  @Test
  void shouldLeaveHeadersOfTheSameNameThatThePromptBrought() {
    try (Harness harness = new Harness()) {
      harness.send(
          null,
          new byte[] {1},
          Map.of(
              DeadLetters.REASON,
              "THEIRS",
              DeadLetters.OMITTED,
              "5",
              DeadLetters.PROMPT_ID,
              "another's"));
      DeadLetter letter = only(harness);
      assertThat(letter.reason()).isEqualTo("BAD_RECORD");
      assertThat(letter.omitted()).as("it is whole").isEqualTo(-1);
      assertThat(letter.promptId()).isEmpty();
      assertThat(texts(letter.original("elsewhere", 1).headers()))
          .isEqualTo(
              Map.of(
                  DeadLetters.REASON,
                  "THEIRS",
                  DeadLetters.OMITTED,
                  "5",
                  DeadLetters.PROMPT_ID,
                  "another's"));
    }
  }

  @Test
  void shouldNotTakeAPromptsOwnHeaderForAMark() {
    try (Harness harness = new Harness()) {
      harness.send(null, new byte[] {1}, Map.of("millrace.replayed.offset", "16"));
      TestRecord<byte[], byte[]> sent = harness.deadLetters().getFirst();
      ConsumerRecord<byte[], byte[]> read = consumed(sent.key(), sent.value(), sent.headers());
      assertThat(DeadLetter.replayedOffset(read)).as("of another dead letter").isEqualTo(-1);
      DeadLetter letter = DeadLetter.read(read);
      assertThat(Objects.requireNonNull(letter).reason()).isEqualTo("BAD_RECORD");
      assertThat(texts(letter.headers())).isEqualTo(Map.of("millrace.replayed.offset", "16"));
    }
  }

  @Test
  void shouldGiveNothingBackThatCameAfterTheWorkersHeaders() {
    Headers headers =
        new RecordHeaders()
            .add("theirs", new byte[] {1})
            .add(DeadLetters.REASON, "X".getBytes(UTF_8))
            .add("of-a-newer-worker", new byte[] {2});
    DeadLetter letter =
        Objects.requireNonNull(DeadLetter.read(consumed(new byte[0], new byte[0], headers)));
    assertThat(letter.headers()).extracting(Header::key).containsExactly("theirs");
  }

  @Test
  void shouldGoBackByThePartitionThatItCameFromWhereThatIsThere() {
    Headers headers =
        new RecordHeaders()
            .add(DeadLetters.REASON, "X".getBytes(UTF_8))
            .add(DeadLetters.TOPIC, "prompts".getBytes(UTF_8))
            .add(DeadLetters.PARTITION, "5".getBytes(UTF_8));
    DeadLetter letter =
        Objects.requireNonNull(DeadLetter.read(consumed(new byte[0], new byte[0], headers)));
    assertThat(letter.original("prompts", 6).partition()).isEqualTo(5);
    assertThat(letter.original("prompts", 5).partition()).as("it has only 0 to 4").isNull();
    assertThat(letter.original("elsewhere", 6).partition()).as("as the key decides").isNull();
  }

  @Test
  void shouldSayThatTheValueIsMissing() {
    try (Harness harness = new Harness("max.prompt.bytes", "4096")) {
      harness.send(null, new byte[5000], Map.of());
      assertThat(only(harness).omitted()).isEqualTo(5000);
    }
  }

  @Test
  void shouldReadNothingIntoOtherRecords() {
    assertThat(DeadLetter.read(consumed(new byte[0], new byte[0], new RecordHeaders()))).isNull();
    Headers damaged =
        new RecordHeaders()
            .add(DeadLetters.REASON, "X".getBytes(UTF_8))
            .add(DeadLetters.PARTITION, "no number".getBytes(UTF_8))
            .add(DeadLetters.OFFSET, null);
    DeadLetter letter =
        Objects.requireNonNull(DeadLetter.read(consumed(new byte[0], new byte[0], damaged)));
    assertThat(letter.sourcePartition()).isEqualTo(-1);
    assertThat(letter.sourceOffset()).isEqualTo(-1);
  }

  @Test
  void shouldMarkADeadLetterAsReplayed() {
    try (Harness harness = new Harness()) {
      harness.send("k".getBytes(UTF_8), new byte[] {1}, Map.of());
      ProducerRecord<byte[], byte[]> mark =
          only(harness).mark("millrace.dead-letters", "t-0@5", Instant.EPOCH);
      assertThat(mark.partition()).isEqualTo(3);
      assertThat(mark.value()).as("no tombstone").isEmpty();
      ConsumerRecord<byte[], byte[]> read = consumed(mark.key(), mark.value(), mark.headers());
      assertThat(DeadLetter.replayedOffset(read)).isEqualTo(17);
      assertThat(DeadLetter.read(read)).as("a mark is no dead letter").isNull();
    }
  }

  @Test
  void shouldAnswerAReplayedPromptThatEndedAsADeadLetter() {
    try (Harness harness = new Harness("engine.attempts", "1")) {
      harness.send(Harness.prompt("p1").build());
      harness.generator.last().failed(Failure.ENGINE, "broken");
      harness.tick();
      DeadLetter letter = only(harness);
      assertThat(letter.promptId()).isEqualTo("p1");
      // Retired: from here on only what is remembered of ids could hold a replay back.
      harness.tick();
      assertThat(harness.gate.kept()).isZero();
      harness.send(letter.key(), letter.value(), Map.of());
      harness.generator.last().done("4");
      harness.tick();
      assertThat(harness.completions()).hasSize(1);
      assertThat(harness.count("millrace.prompts.duplicate")).isZero();
      // But not twice, as an operator's second replay would ask for.
      harness.send(letter.key(), letter.value(), Map.of());
      harness.tick();
      assertThat(harness.completions()).isEmpty();
      assertThat(harness.count("millrace.prompts.duplicate")).isEqualTo(1);
    }
  }

  @Test
  void shouldExplainEachReason() {
    assertThat(Arrays.stream(Reason.values()).map(Reason::doc))
        .allSatisfy(doc -> assertThat(doc).endsWith(".").doesNotContain("|"));
  }
}
