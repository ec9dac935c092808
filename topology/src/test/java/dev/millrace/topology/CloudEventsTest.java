package dev.millrace.topology;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.millrace.inference.api.GenerateEvent.ToolCall;
import dev.millrace.schemas.ChunkEvent;
import dev.millrace.schemas.CompletionEvent;
import dev.millrace.schemas.ToolCallEvent;
import java.util.HashMap;
import java.util.Map;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.streams.test.TestRecord;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;

/** Prompts that come as CloudEvents, and answers that go out as such. */
class CloudEventsTest {
  private static final Map<String, String> REQUEST =
      Map.of(
          "ce_specversion", "1.0",
          "ce_id", "A234",
          "ce_source", "/theirs",
          "ce_type", "com.example.ask",
          "ce_time", "2026-01-01T00:00:00Z",
          "ce_subject", "s",
          "ce_tenantclass", "gold",
          "ce_Not_an_attribute", "x");

  private Harness harness = new Harness("cloudevents.source", "/ours");

  @AfterEach
  void close() {
    harness.close();
  }

  private static Map<String, String> headers(TestRecord<?, ?> record) {
    Map<String, String> found = new HashMap<>();
    for (Header header : record.headers()) {
      found.put(header.key(), new String(header.value(), UTF_8));
    }
    return found;
  }

  private void send(String id, Map<String, String> headers) {
    harness.send(
        "k".getBytes(UTF_8),
        harness.bytes(Harness.prompt(id).setStream(true).setMetadata(Map.of("m", "1")).build()),
        headers);
  }

  @Test
  void shouldTakeTheEventsIdWhereThePromptHasNone() {
    send("", REQUEST);
    harness.generator.last().done("4");
    harness.advance(java.time.Duration.ofSeconds(1));
    CompletionEvent completion = harness.completions().getFirst().value();
    assertThat(completion.getPromptId()).isEqualTo("A234");
    assertThat(completion.getMetadata())
        .containsEntry("m", "1")
        .containsEntry("ce_id", "A234")
        .containsEntry("ce_source", "/theirs")
        .containsEntry("ce_type", "com.example.ask")
        .containsEntry("ce_time", "2026-01-01T00:00:00Z")
        .containsEntry("ce_subject", "s");
  }

  @Test
  void shouldPreferThePromptsOwnId() {
    send("p1", REQUEST);
    assertThat(harness.generator.last().request.id()).isEqualTo("p1");
  }

  @Test
  void shouldRefuseAnIdThatIsTooLong() {
    Map<String, String> headers = new HashMap<>(REQUEST);
    headers.put("ce_id", "x".repeat(EventMapper.LONGEST_ID + 1));
    send("", headers);
    assertThat(headers(harness.deadLetters().getFirst()))
        .containsEntry(DeadLetters.REASON, "INVALID_REQUEST")
        .containsEntry("ce_source", "/theirs");
  }

  @Test
  void shouldSendEachOutputAsACloudEventOfItsOwn() {
    send("p1", REQUEST);
    harness.advance(java.time.Duration.ofSeconds(1));
    harness.generator.last().delta("4", 4);
    harness.advance(java.time.Duration.ofSeconds(1));
    harness.generator.last().done("4", new ToolCall(0, "f", "{}", null));
    harness.advance(java.time.Duration.ofSeconds(1));

    TestRecord<byte[], CompletionEvent> completion = harness.completions().getFirst();
    assertThat(headers(completion))
        .containsEntry("ce_specversion", "1.0")
        .containsEntry("ce_id", "p1/completion")
        .containsEntry("ce_source", "/ours")
        .containsEntry("ce_type", "dev.millrace.completion")
        .containsEntry("ce_subject", "p1")
        .containsEntry("ce_causationid", "A234")
        .containsEntry("ce_tenantclass", "gold")
        .containsEntry("content-type", "application/avro")
        .doesNotContainKeys("ce_Not_an_attribute");
    assertThat(headers(completion).get("ce_time")).startsWith("2026-01-01T00:00:0");
    TestRecord<byte[], ToolCallEvent> call = harness.toolCalls().getFirst();
    assertThat(headers(call))
        .containsEntry("ce_id", "p1/0")
        .containsEntry("ce_type", "dev.millrace.tool-call");
    TestRecord<byte[], ChunkEvent> chunk = harness.chunks().getFirst();
    assertThat(headers(chunk))
        .containsEntry("ce_id", "p1/1/0")
        .containsEntry("ce_type", "dev.millrace.chunk");
  }

  @Test
  void shouldSendNoAttributesWithoutTheSetting() {
    close();
    harness = new Harness();
    send("p1", REQUEST);
    harness.generator.last().done("4");
    harness.advance(java.time.Duration.ofSeconds(1));
    assertThat(headers(harness.completions().getFirst()).keySet())
        .noneMatch(name -> name.startsWith("ce_"));
  }

  @Test
  void shouldNotCarryOnMoreThanIsReasonable() {
    Map<String, String> headers = new HashMap<>(REQUEST);
    headers.put("ce_bomb", "x".repeat(100_000));
    headers.put("ce_subject", "x".repeat(100_000));
    send("p1", headers);
    harness.generator.last().done("4");
    harness.advance(java.time.Duration.ofSeconds(1));
    TestRecord<byte[], CompletionEvent> completion = harness.completions().getFirst();
    assertThat(completion.value().getMetadata()).containsOnlyKeys("m");
    assertThat(headers(completion)).doesNotContainKeys("ce_bomb", "ce_tenantclass");
  }

  @Test
  void shouldRefuseASourceThatIsNoUri() {
    assertThatThrownBy(() -> new Harness("cloudevents.source", "not a uri"))
        .isInstanceOf(ConfigException.class)
        .hasMessageContaining("cloudevents.source");
  }
}
