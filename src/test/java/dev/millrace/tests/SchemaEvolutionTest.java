package dev.millrace.tests;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.millrace.schemas.EventTypes;
import dev.millrace.topology.local.LocalRegistry;
import io.confluent.kafka.schemaregistry.avro.AvroSchema;
import io.confluent.kafka.schemaregistry.client.CachedSchemaRegistryClient;
import io.confluent.kafka.schemaregistry.client.SchemaRegistryClient;
import io.confluent.kafka.schemaregistry.client.rest.exceptions.RestClientException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.Stream;
import org.apache.avro.Schema;
import org.apache.avro.specific.SpecificRecord;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.TestInstance;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/**
 * The events can grow: a real registry that holds them to FULL_TRANSITIVE, under which every
 * version must read every other, takes a new field and a new enum symbol. That it takes them at all
 * is worth a test too: Apicurio refuses a schema that has the string <code>{}</code> for a default.
 */
@TestInstance(TestInstance.Lifecycle.PER_CLASS)
class SchemaEvolutionTest {
  private LocalRegistry registry;
  private SchemaRegistryClient client;

  @BeforeAll
  void start(@TempDir Path folder) throws Exception {
    registry = LocalRegistry.start(folder);
    client = new CachedSchemaRegistryClient(registry.url(), 100);
    String unused = client.updateCompatibility(null, "FULL_TRANSITIVE");
  }

  @AfterAll
  void stop() {
    registry.close();
  }

  static Stream<Class<? extends SpecificRecord>> events() {
    return EventTypes.ALL.stream();
  }

  private int register(String subject, Schema schema) throws Exception {
    return client.register(subject, new AvroSchema(schema));
  }

  private void assertRefused(String subject, Schema schema) {
    assertThatThrownBy(() -> register(subject, schema))
        .isInstanceOf(RestClientException.class)
        .satisfies(e -> assertThat(((RestClientException) e).getStatus()).isEqualTo(409));
  }

  @ParameterizedTest
  @MethodSource("events")
  void shouldTakeANewFieldAndANewSymbol(Class<? extends SpecificRecord> type) throws Exception {
    Schema first = EventTypes.schemaOf(type);
    String subject = "grows-" + type.getSimpleName() + "-value";
    int id = register(subject, first);
    Schema second = Evolved.withField(first, "added", "\"string\"", "\"\"");
    assertThat(register(subject, second)).isNotEqualTo(id);
    Schema third = Evolved.withSymbols(second);
    assertThat(register(subject, third)).isPositive();
    Schema fourth = Evolved.withField(third, "another", "[\"null\", \"long\"]", "null");
    assertThat(register(subject, fourth)).isPositive();
    // Transitive: back past everything that was added since.
    assertThat(register(subject, Evolved.withField(first, "other", "\"int\"", "0"))).isPositive();
    assertThat(client.getAllVersions(subject)).hasSizeBetween(4, 5);
  }

  @ParameterizedTest
  @MethodSource("events")
  void shouldNotTakeAFieldWithoutADefault(Class<? extends SpecificRecord> type) throws Exception {
    Schema first = EventTypes.schemaOf(type);
    String subject = "bad-" + type.getSimpleName() + "-value";
    int unused = register(subject, first);
    assertRefused(subject, Evolved.withField(first, "added", "\"string\"", null));
  }

  @ParameterizedTest
  @MethodSource("events")
  void shouldNotTakeAFieldOfAnotherType(Class<? extends SpecificRecord> type) throws Exception {
    Schema first = EventTypes.schemaOf(type);
    String subject = "changed-" + type.getSimpleName() + "-value";
    int unused = register(subject, Evolved.withField(first, "added", "\"string\"", "\"\""));
    assertRefused(subject, Evolved.withField(first, "added", "\"int\"", "0"));
  }

  @ParameterizedTest
  @MethodSource("events")
  void shouldHaveADefaultForEveryFieldAndEnum(Class<? extends SpecificRecord> type) {
    List<String> missing = new ArrayList<>();
    Evolved.walk(
        EventTypes.schemaOf(type),
        schema -> {
          if (schema.getType() == Schema.Type.RECORD) {
            for (Schema.Field field : schema.getFields()) {
              if (!field.hasDefaultValue()) {
                missing.add(schema.getName() + "." + field.name());
              }
            }
          }
          if (schema.getType() == Schema.Type.ENUM && schema.getEnumDefault() == null) {
            missing.add(schema.getName());
          }
        });
    assertThat(missing)
        .as("fields and enums of %s without a default", type.getSimpleName())
        .isEmpty();
  }
}
