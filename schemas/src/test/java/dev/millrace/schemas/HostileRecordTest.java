package dev.millrace.schemas;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.confluent.kafka.schemaregistry.avro.AvroSchema;
import io.confluent.kafka.schemaregistry.client.MockSchemaRegistryClient;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.SplittableRandom;
import org.apache.avro.Schema;
import org.apache.avro.io.BinaryEncoder;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Bytes and schemas made to harm: each ends in a {@link BadRecordException}, soon. */
@Timeout(60)
class HostileRecordTest {
  private static final String TOPIC = "prompts";

  private final MockSchemaRegistryClient registry = new MockSchemaRegistryClient();
  private final AvroSerde<PromptEvent> serde =
      new AvroSerde<>(PromptEvent.class, registry, /* autoRegister= */ true);

  private void assertBad(byte[] bytes, String... messageParts) {
    assertThatThrownBy(() -> serde.deserializer().deserialize(TOPIC, bytes))
        .isInstanceOf(BadRecordException.class)
        .satisfies(e -> assertThat(e.getMessage()).contains(List.of(messageParts)));
  }

  /** A record of the one field {@code type}, which is no field of PromptEvent, or is one. */
  private byte[] record(String field, String type, TestBytes.Body body) throws Exception {
    String text =
        """
        {"type": "record", "name": "PromptEvent", "namespace": "dev.millrace.schemas", "fields": [
          {"name": "%s", "type": %s}]}
        """
            .formatted(field, type);
    Schema schema = new Schema.Parser().parse(text);
    return TestBytes.framed(registry.register("s", new AvroSchema(schema)), body);
  }

  @Test
  void shouldRefuseWhatIsNotInTheWireFormat() {
    assertBad(new byte[0], "schema registry's format", "is empty");
    assertBad(new byte[] {0, 0, 0, 1}, "4 bytes beginning with 00 00 00 01");
    assertBad("{\"id\": 1}".getBytes(java.nio.charset.StandardCharsets.UTF_8), "7b 22 69 64");
    assertBad(new byte[] {2, 0, 0, 0, 1, 0}, "must begin with 0x00");
  }

  @Test
  void shouldRefuseAnUnknownId() {
    assertBad(new byte[] {0, 0, 0, 3, -24, 0}, "schema id 1000", "no such schema");
  }

  @ParameterizedTest
  @ValueSource(longs = {1L << 20, Integer.MAX_VALUE, 1L << 40, Long.MAX_VALUE, -1, Long.MIN_VALUE})
  void shouldRefuseAStringLongerThanItsRecord(long length) throws Exception {
    assertBad(record("id", "\"string\"", out -> out.writeLong(length)), "claims " + length);
  }

  @ParameterizedTest
  @ValueSource(longs = {1L << 20, Integer.MAX_VALUE, 1L << 40, Long.MAX_VALUE})
  void shouldRefuseAnArrayLongerThanItsRecord(long count) throws Exception {
    byte[] bytes =
        record(
            "promptTokens", "{\"type\": \"array\", \"items\": \"int\"}", o -> o.writeLong(count));
    assertBad(bytes, "an array claims " + count);
  }

  @Test
  void shouldRefuseABlockLongerThanItsRecord() throws Exception {
    for (long size : new long[] {1000, -1, Long.MAX_VALUE}) {
      TestBytes.Body body =
          out -> {
            out.writeLong(-3);
            out.writeLong(size);
          };
      String array = "{\"type\": \"array\", \"items\": \"int\"}";
      assertBad(record("promptTokens", array, body), "block of " + size);
      assertBad(record("skipped", array, body), "block of " + size);
    }
  }

  @Test
  void shouldRefuseACountThatHasNoPositive() throws Exception {
    byte[] bytes =
        record(
            "promptTokens",
            "{\"type\": \"array\", \"items\": \"int\"}",
            out -> {
              out.writeLong(Long.MIN_VALUE);
              out.writeLong(0);
            });
    assertBad(bytes, "an array claims");
  }

  @Test
  void shouldRefuseAMapLongerThanItsRecord() throws Exception {
    String map = "{\"type\": \"map\", \"values\": \"string\"}";
    assertBad(record("metadata", map, out -> out.writeLong(1L << 30)), "a map claims 1073741824");
    assertBad(record("skipped", map, out -> out.writeLong(1L << 30)), "a map claims 1073741824");
  }

  @Test
  void shouldRefuseItemsThatTakeNoBytes() throws Exception {
    String empty =
        """
        {"type": "array", "items": {"type": "record", "name": "PromptMessage", "fields": [
          {"name": "nothing", "type": "null"}]}}
        """;
    assertBad(record("messages", empty, o -> o.writeLong(1 << 30)), "items take no bytes");
    assertBad(
        record("skipped", "{\"type\": \"array\", \"items\": \"null\"}", o -> o.writeLong(1 << 30)),
        "items take no bytes");
  }

  @Test
  void shouldRefuseMoreStringsThanTheRecordMayTakeMemoryFor() throws Exception {
    String sampling =
        """
        {"type": "record", "name": "PromptSampling", "fields": [
          {"name": "stop", "type": {"type": "array", "items": "string"}}]}
        """;
    assertBad(record("sampling", sampling, zeros(8 << 20, 1)), "too many small parts");
  }

  @Test
  void shouldRefuseMoreRecordsThanTheRecordMayTakeMemoryFor() throws Exception {
    String small =
        """
        {"type": "array", "items": {"type": "record", "name": "PromptMessage", "fields": [
          {"name": "content", "type": "string"}]}}
        """;
    assertBad(record("messages", small, zeros(1 << 20, 1)), "too many small parts");
  }

  @Test
  void shouldRefuseMoreMapEntriesThanTheRecordMayTakeMemoryFor() throws Exception {
    String map = "{\"type\": \"map\", \"values\": \"string\"}";
    assertBad(record("metadata", map, zeros(1 << 20, 2)), "too many small parts");
  }

  @Test
  void shouldReadMillionsOfTokens() throws Exception {
    int count = 4_000_000;
    byte[] bytes =
        record("promptTokens", "{\"type\": \"array\", \"items\": \"int\"}", zeros(count, 1));
    PromptEvent event = serde.deserializer().deserialize(TOPIC, bytes);
    assertThat(event).isNotNull();
    assertThat(event.getPromptTokens()).hasSize(count);
  }

  @Test
  void shouldReadALongAnswersLogprobs() {
    List<CompletionTopLogprob> top =
        Collections.nCopies(20, new CompletionTopLogprob(/* token= */ 5, -0.5f));
    CompletionEvent event =
        CompletionEvent.newBuilder()
            .setLogprobs(Collections.nCopies(60_000, new CompletionLogprob(7, -1f, top)))
            .build();
    try (AvroSerde<CompletionEvent> completions =
        new AvroSerde<>(CompletionEvent.class, registry, /* autoRegister= */ true)) {
      byte[] bytes = completions.serializer().serialize("completions", event);
      assertThat(completions.deserializer().deserialize("completions", bytes)).isEqualTo(event);
    }
  }

  /** A collection of so many items, each of them zeros. */
  private static TestBytes.Body zeros(int count, int itemBytes) {
    return out -> {
      out.writeLong(count);
      out.writeFixed(new byte[count * itemBytes]);
      out.writeLong(0);
    };
  }

  @Test
  void shouldRefuseABranchOrSymbolThatIsNone() throws Exception {
    assertBad(record("prompt", "[\"null\", \"string\"]", out -> out.writeIndex(7)), "PromptEvent");
    assertBad(record("prompt", "[\"null\", \"string\"]", out -> out.writeIndex(-1)), "PromptEvent");
  }

  @Test
  void shouldRefuseAStringThatIsNotUtf8() throws Exception {
    byte[] bytes = record("id", "\"string\"", out -> out.writeBytes(new byte[] {'a', (byte) 0xC3}));
    assertBad(bytes, "not UTF-8");
  }

  @Test
  void shouldReadAReplacementCharacterThatIsMeant() throws Exception {
    byte[] bytes = record("id", "\"string\"", out -> out.writeString("a\uFFFDb"));
    PromptEvent event = serde.deserializer().deserialize(TOPIC, bytes);
    assertThat(event).extracting(PromptEvent::getId).isEqualTo("a\uFFFDb");
  }

  @Test
  void shouldRefuseBytesThatAreLeftOver() throws Exception {
    byte[] bytes =
        record(
            "id",
            "\"string\"",
            (BinaryEncoder out) -> {
              out.writeString("p");
              out.writeFixed(new byte[3]);
            });
    assertBad(bytes, "3 bytes after the end of its PromptEvent");
  }

  @Test
  void shouldRefuseEveryTruncation() {
    byte[] bytes = serde.serializer().serialize(TOPIC, Events.prompt());
    assertThat(bytes).isNotNull();
    for (int length = 0; length < bytes.length; length++) {
      assertBad(Arrays.copyOf(bytes, length), "record");
    }
  }

  @Test
  void shouldEndInAnEventOrABadRecordWhateverBytesChange() {
    byte[] bytes = serde.serializer().serialize(TOPIC, Events.prompt());
    assertThat(bytes).isNotNull();
    for (long seed = 0; seed < 20_000; seed++) {
      SplittableRandom random = new SplittableRandom(seed);
      byte[] changed = bytes.clone();
      for (int n = random.nextInt(1, 6); n > 0; n--) {
        changed[random.nextInt(5, changed.length)] = (byte) random.nextInt();
      }
      try {
        assertThat(serde.deserializer().deserialize(TOPIC, changed)).isNotNull();
      } catch (BadRecordException e) {
        assertThat(e).hasMessageContaining(TOPIC);
      } catch (Throwable e) {
        throw new AssertionError("seed " + seed, e);
      }
    }
  }

  @Test
  void shouldRefuseASchemaThatIsHugeWhenWrittenOut() throws Exception {
    StringBuilder type = new StringBuilder("\"string\"");
    for (int i = 0; i < 40; i++) {
      type.insert(
          0,
          "{\"type\": \"record\", \"name\": \"R%d\", \"fields\": [{\"name\": \"a\", \"type\": "
              .formatted(i));
      type.append(
          "}, {\"name\": \"b\", \"type\": %s}]}"
              .formatted(i == 0 ? "\"string\"" : "\"R" + (i - 1) + "\""));
    }
    assertBad(record("skipped", type.toString(), out -> out.writeLong(0)), "more than 20000 parts");
  }

  @Test
  void shouldRefuseARecursiveSchema() throws Exception {
    String list =
        """
        {"type": "record", "name": "Node", "fields": [
          {"name": "next", "type": ["null", "Node"]}]}
        """;
    byte[] bytes =
        record(
            "skipped",
            list,
            out -> {
              for (int i = 0; i < 1_000_000; i++) {
                out.writeIndex(1);
              }
              out.writeIndex(0);
            });
    assertBad(bytes, "the record dev.millrace.schemas.Node inside itself");
  }

  @Test
  void shouldRefuseASchemaOfOtherTypes() throws Exception {
    assertBad(record("id", "\"long\"", out -> out.writeLong(1)), "Found long, expecting string");
  }

  @Test
  void shouldLoadNoClassThatASchemaNames() throws Exception {
    String type = "{\"type\": \"string\", \"java-class\": \"java.io.File\"}";
    byte[] bytes = record("id", type, out -> out.writeString("/x"));
    PromptEvent event = serde.deserializer().deserialize(TOPIC, bytes);
    assertThat(event).extracting(PromptEvent::getId).isEqualTo("/x");
  }
}
