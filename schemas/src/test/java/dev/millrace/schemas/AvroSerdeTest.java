package dev.millrace.schemas;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.confluent.kafka.schemaregistry.avro.AvroSchema;
import io.confluent.kafka.schemaregistry.client.MockSchemaRegistryClient;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericData;
import org.apache.avro.generic.GenericRecord;
import org.apache.avro.generic.GenericRecordBuilder;
import org.apache.kafka.common.config.ConfigException;
import org.apache.kafka.common.header.internals.RecordHeaders;
import org.junit.jupiter.api.Test;

class AvroSerdeTest {
  private static final String TOPIC = "prompts";

  private final MockSchemaRegistryClient registry = new MockSchemaRegistryClient();
  private final AvroSerde<PromptEvent> serde =
      new AvroSerde<>(PromptEvent.class, registry, /* autoRegister= */ true);

  private PromptEvent read(byte[] bytes) {
    PromptEvent event = serde.deserializer().deserialize(TOPIC, bytes);
    assertThat(event).isNotNull();
    return event;
  }

  private byte[] write(PromptEvent event) {
    byte[] bytes = serde.serializer().serialize(TOPIC, event);
    assertThat(bytes).isNotNull();
    return bytes;
  }

  @Test
  void shouldReadBackWhatItWrote() {
    assertThat(read(write(Events.prompt()))).isEqualTo(Events.prompt());
  }

  @Test
  void shouldNameTheSchemaOfEachEventAndTopicInTurn() {
    var any = new AvroSerde<>();
    any.configure(Map.of("schema.registry.url", "mock://turns"), false);
    CancelEvent cancel = CancelEvent.newBuilder().setPromptId("p").build();
    for (int round = 0; round < 2; round++) {
      for (String topic : List.of("a", "b")) {
        for (var event : List.of(Events.prompt(), cancel)) {
          byte[] bytes = any.serializer().serialize(topic, event);
          assertThat(any.deserializer().deserialize(topic, bytes)).isEqualTo(event);
        }
      }
    }
  }

  @Test
  void shouldReadBackEveryEventOfDefaults() throws Exception {
    for (var type : EventTypes.ALL) {
      var any = new AvroSerde<>();
      any.configure(Map.of("schema.registry.url", "mock://defaults"), false);
      var event = type.getDeclaredConstructor().newInstance();
      GenericRecord defaults = new GenericRecordBuilder(EventTypes.schemaOf(type)).build();
      for (Schema.Field field : defaults.getSchema().getFields()) {
        event.put(
            field.pos(),
            EventTypes.data().deepCopy(field.schema(), EventTypes.data().getDefaultValue(field)));
      }
      byte[] bytes = any.serializer().serialize("t-" + type.getSimpleName(), event);
      assertThat(any.deserializer().deserialize("t-" + type.getSimpleName(), bytes))
          .isEqualTo(event)
          .isInstanceOf(type);
    }
  }

  @Test
  void shouldRegisterUnderTheTopicsSubject() throws Exception {
    byte[] bytes = write(Events.prompt());
    assertThat(bytes[0]).isZero();
    int id = ByteBuffer.wrap(bytes, 1, 4).getInt();
    assertThat(id).isEqualTo(registry.getId("prompts-value", new AvroSchema(PromptEvent.SCHEMA$)));
    assertThat(registry.getAllSubjects()).containsExactly("prompts-value");
  }

  @Test
  void shouldNotRegisterWhenToldNotTo() {
    AvroSerde<PromptEvent> strict = new AvroSerde<>(PromptEvent.class, registry, false);
    assertThatThrownBy(() -> strict.serializer().serialize(TOPIC, Events.prompt()))
        .isInstanceOf(RegistryUnavailableException.class)
        .hasMessageContaining("does not have the schema dev.millrace.schemas.PromptEvent")
        .hasMessageContaining("prompts-value")
        .hasMessageContaining("auto.register.schemas=true");
  }

  @Test
  void shouldUseARegisteredSchemaWhenToldNotToRegister() throws Exception {
    int unused = registry.register("prompts-value", new AvroSchema(PromptEvent.SCHEMA$));
    AvroSerde<PromptEvent> strict = new AvroSerde<>(PromptEvent.class, registry, false);
    byte[] bytes = strict.serializer().serialize(TOPIC, Events.prompt());
    assertThat(bytes).isNotNull();
    assertThat(read(bytes)).isEqualTo(Events.prompt());
  }

  @Test
  void shouldPassNullThrough() {
    assertThat(serde.serializer().serialize(TOPIC, null)).isNull();
    assertThat(serde.deserializer().deserialize(TOPIC, null)).isNull();
  }

  @Test
  void shouldReadAnOlderSchemaWithDefaults() throws Exception {
    Schema old =
        new Schema.Parser()
            .parse(
                """
                {"type": "record", "name": "PromptEvent", "namespace": "dev.millrace.schemas", "fields": [
                  {"name": "prompt", "type": "string"},
                  {"name": "id", "type": "string"}]}
                """);
    GenericRecord record = new GenericData.Record(old);
    record.put("id", "p");
    record.put("prompt", "Once");
    PromptEvent event = read(TestBytes.framed(registry, "old", record));
    assertThat(event.getId()).isEqualTo("p");
    assertThat(event.getPrompt()).isEqualTo("Once");
    assertThat(event.getMessages()).isEmpty();
    assertThat(event.getSampling().getTemperature()).isNull();
    assertThat(event.getToolChoice().getMode()).isEqualTo(ToolChoiceMode.AUTO);
  }

  @Test
  void shouldReadItemsOfAnOlderSchemaThatAreShorterThanOurs() throws Exception {
    Schema old =
        new Schema.Parser()
            .parse(
                """
                {"type": "record", "name": "PromptEvent", "namespace": "dev.millrace.schemas", "fields": [
                  {"name": "messages", "type": {"type": "array", "items": {
                    "type": "record", "name": "PromptMessage", "fields": [
                      {"name": "content", "type": "string"}]}}}]}
                """);
    GenericRecord record = new GenericData.Record(old);
    GenericRecord message =
        new GenericData.Record(old.getField("messages").schema().getElementType());
    message.put("content", "");
    record.put("messages", List.of(message, message, message));
    assertThat(read(TestBytes.framed(registry, "old", record)).getMessages()).hasSize(3);
  }

  @Test
  void shouldReadANewerSchemaWithoutWhatItDoesNotKnow() throws Exception {
    Schema newer =
        TestBytes.withField(PromptEvent.SCHEMA$, "extra", Schema.create(Schema.Type.BYTES));
    GenericRecord record = new GenericData.Record(newer);
    for (Schema.Field field : PromptEvent.SCHEMA$.getFields()) {
      record.put(field.name(), GenericData.get().getDefaultValue(field));
    }
    record.put("extra", ByteBuffer.wrap(new byte[100]));
    record.put("id", "p");
    assertThat(read(TestBytes.framed(registry, "newer", record)).getId()).isEqualTo("p");
  }

  @Test
  void shouldReadAnUnknownEnumSymbolAsTheDefault() throws Exception {
    Schema newer =
        new Schema.Parser()
            .parse(
                PromptEvent.SCHEMA$
                    .toString()
                    .replace("\"AUTO\",\"NONE\"", "\"AUTO\",\"SOMETIMES\",\"NONE\""));
    GenericRecord record = new GenericRecordBuilder(newer).build();
    Schema choice = newer.getField("toolChoice").schema();
    record.put(
        "toolChoice",
        new GenericRecordBuilder(choice)
            .set("mode", new GenericData.EnumSymbol(choice.getField("mode").schema(), "SOMETIMES"))
            .build());
    PromptEvent event = read(TestBytes.framed(registry, "newer", record));
    assertThat(event.getToolChoice().getMode()).isEqualTo(ToolChoiceMode.UNKNOWN);
  }

  @Test
  void shouldReadAPromptOfAMillionTokens() {
    PromptEvent event = Events.prompt();
    List<Integer> tokens = new ArrayList<>();
    for (int i = 0; i < 1_000_000; i++) {
      tokens.add(i % 128_000);
    }
    event.setPromptTokens(tokens);
    assertThat(read(write(event)).getPromptTokens()).isEqualTo(tokens);
  }

  @Test
  void shouldRefuseAnotherEventsRecord() throws Exception {
    byte[] bytes = TestBytes.framed(registry, "cancels", new CancelEvent("p", "no need"));
    assertThatThrownBy(() -> read(bytes))
        .isInstanceOf(BadRecordException.class)
        .hasMessageContaining("topic prompts")
        .hasMessageContaining("is of dev.millrace.schemas.CancelEvent")
        .hasMessageContaining("what is read here is dev.millrace.schemas.PromptEvent");
  }

  @Test
  void shouldSayWhatCannotBeWritten() {
    PromptEvent event = Events.prompt();
    event.setMetadata(null);
    assertThatThrownBy(() -> write(event))
        .isInstanceOf(BadRecordException.class)
        .hasMessageContaining("PromptEvent for topic prompts")
        .hasMessageContaining("metadata");
  }

  @Test
  void shouldTakeTheIdFromTheHeader() {
    byte[] bytes = write(Events.prompt());
    RecordHeaders headers = new RecordHeaders();
    headers.add(WireFormat.VALUE_HEADER, Arrays.copyOf(bytes, 5));
    PromptEvent event =
        serde
            .deserializer()
            .deserialize(TOPIC, headers, Arrays.copyOfRange(bytes, 5, bytes.length));
    assertThat(event).isEqualTo(Events.prompt());
  }

  @Test
  void shouldSayThatAHeaderNamesNoSchema() {
    RecordHeaders headers = new RecordHeaders();
    headers.add(WireFormat.VALUE_HEADER, new byte[] {1, 2, 3});
    assertThatThrownBy(() -> serde.deserializer().deserialize(TOPIC, headers, new byte[9]))
        .isInstanceOf(BadRecordException.class)
        .hasMessageContaining("__value_schema_id names no schema")
        .hasMessageContaining("3 bytes beginning with 01 02 03");
  }

  @Test
  void shouldSayWhatIsMissingInItsSettings() {
    assertThatThrownBy(() -> new AvroSerde<>().configure(Map.of(), false))
        .isInstanceOf(ConfigException.class)
        .hasMessageContaining("schema.registry.url is not set");
    assertThatThrownBy(
            () ->
                new AvroSerde<>()
                    .configure(
                        Map.of("schema.registry.url", "mock://x", "auto.register.schemas", "maybe"),
                        false))
        .isInstanceOf(ConfigException.class)
        .hasMessageContaining("auto.register.schemas")
        .hasMessageContaining("true or false");
  }
}
