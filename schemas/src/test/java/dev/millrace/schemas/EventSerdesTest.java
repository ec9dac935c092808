package dev.millrace.schemas;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.confluent.kafka.schemaregistry.client.rest.exceptions.RestClientException;
import java.net.ConnectException;
import java.util.Map;
import org.apache.kafka.common.config.ConfigException;
import org.apache.kafka.common.errors.SerializationException;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.Serializer;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Test;

class EventSerdesTest {

  /** Throws what the record's first byte says, as Confluent's serdes do: always the same type. */
  public static final class Foreign implements Serde<Object> {
    private Map<String, ?> settings = Map.of();

    @Override
    public void configure(Map<String, ?> configs, boolean isKey) {
      settings = configs;
    }

    @Override
    public Serializer<Object> serializer() {
      return (topic, event) -> {
        throw failure(0);
      };
    }

    @Override
    public Deserializer<Object> deserializer() {
      return (topic, data) -> {
        assertThat(settings.get("specific.avro.reader")).isEqualTo(true);
        if (data[0] < 0) {
          return data[0] == -1 ? new CancelEvent("p", "") : new PromptEvent();
        }
        throw failure(data[0]);
      };
    }

    private static SerializationException failure(int which) {
      @Nullable Exception cause =
          switch (which) {
            case 0 -> new ConnectException("refused");
            case 1 -> new RestClientException("no such schema", 404, 40403);
            case 2 -> new RestClientException("down", 500, 50001);
            default -> new ArrayIndexOutOfBoundsException("bad bytes");
          };
      return new SerializationException("Error", cause);
    }
  }

  private static Serde<PromptEvent> foreign() {
    return EventSerdes.create(PromptEvent.class, Foreign.class.getName(), Map.of());
  }

  private static @Nullable PromptEvent read(int first) {
    return foreign().deserializer().deserialize("prompts", new byte[] {(byte) first});
  }

  @Test
  void shouldMakeOurs() {
    Serde<PromptEvent> serde =
        EventSerdes.create(
            PromptEvent.class,
            "dev.millrace.schemas.AvroSerde",
            Map.of("schema.registry.url", "mock://ours"));
    assertThat(serde).isInstanceOf(AvroSerde.class);
    byte[] bytes = serde.serializer().serialize("prompts", Events.prompt());
    assertThat(serde.deserializer().deserialize("prompts", bytes)).isEqualTo(Events.prompt());
  }

  @Test
  void shouldMakeOneThatIsNamed() {
    assertThat(read(-2)).isInstanceOf(PromptEvent.class);
  }

  @Test
  void shouldStallWhenANamedOneCannotReachTheRegistry() {
    assertThatThrownBy(() -> read(0)).isInstanceOf(RegistryUnavailableException.class);
    assertThatThrownBy(() -> read(2)).isInstanceOf(RegistryUnavailableException.class);
    assertThatThrownBy(() -> foreign().serializer().serialize("prompts", new PromptEvent()))
        .isInstanceOf(RegistryUnavailableException.class);
  }

  @Test
  void shouldBlameTheRecordWhenANamedOneDoes() {
    assertThatThrownBy(() -> read(1)).isInstanceOf(BadRecordException.class);
    assertThatThrownBy(() -> read(3))
        .isInstanceOf(BadRecordException.class)
        .hasMessageContaining("the record on topic prompts is unreadable");
  }

  @Test
  void shouldRefuseAnotherEventThatANamedOneRead() {
    assertThatThrownBy(() -> read(-1))
        .isInstanceOf(BadRecordException.class)
        .hasMessageContaining("read as dev.millrace.schemas.CancelEvent");
  }

  @Test
  void shouldSayThatThereIsNoSuchSerde() {
    for (String name : new String[] {"no.such.Serde", "java.lang.String", Serdes.class.getName()}) {
      assertThatThrownBy(() -> EventSerdes.create(PromptEvent.class, name, Map.of()))
          .isInstanceOf(ConfigException.class)
          .hasMessageContaining("the serde class " + name);
    }
  }
}
