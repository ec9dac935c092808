package dev.millrace.schemas;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.sun.net.httpserver.HttpServer;
import io.confluent.kafka.schemaregistry.client.rest.exceptions.RestClientException;
import java.io.IOException;
import java.net.ConnectException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.util.Map;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.config.ConfigException;
import org.apache.kafka.common.errors.InvalidConfigurationException;
import org.apache.kafka.common.errors.SerializationException;
import org.apache.kafka.common.header.internals.RecordHeaders;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.Serializer;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

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
        throw failure(((PromptEvent) event).getPriority());
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

    private static KafkaException failure(int which) {
      if (which == 4) {
        return new InvalidConfigurationException("Unauthorized; error code: 401");
      }
      @Nullable Exception cause =
          switch (which) {
            case 0 -> new ConnectException("refused");
            case 1 -> new RestClientException("no such schema", 404, 40403);
            case 2 -> new RestClientException("down", 500, 50001);
            case 5 -> new RestClientException("no such subject", 404, 40401);
            case 6 -> new RestClientException("no such page", 404, 404);
            case 7 -> new RestClientException("incompatible", 409, 40901);
            case 8 -> new IOException("http://ann:s3cret@r is down");
            case 9 -> new IllegalStateException("not http://ann:s3cret@r");
            default -> new ArrayIndexOutOfBoundsException("bad bytes");
          };
      return new SerializationException("Error", cause);
    }
  }

  private static Serde<PromptEvent> foreign() {
    return EventSerdes.create(
        PromptEvent.class,
        Foreign.class.getName(),
        Map.of("schema.registry.url", "http://q,http://ann:s3cret@r"));
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
    for (int which : new int[] {0, 2, 4, 6}) {
      assertThatThrownBy(() -> read(which)).isInstanceOf(RegistryUnavailableException.class);
    }
  }

  private static void write(int which) {
    PromptEvent event = PromptEvent.newBuilder().setPriority(which).build();
    byte[] unused = foreign().serializer().serialize("prompts", event);
  }

  @ParameterizedTest
  @ValueSource(ints = {0, 1, 2, 4, 5, 6, 7})
  void shouldStallWhateverTheRegistryAnswersToAWriter(int which) {
    assertThatThrownBy(() -> write(which)).isInstanceOf(RegistryUnavailableException.class);
    PromptEvent event = PromptEvent.newBuilder().setPriority(which).build();
    RecordHeaders headers = new RecordHeaders();
    assertThatThrownBy(() -> foreign().serializer().serialize("prompts", headers, event))
        .isInstanceOf(RegistryUnavailableException.class);
  }

  @Test
  void shouldBlameTheEventThatCannotBeWritten() {
    assertThatThrownBy(() -> write(3))
        .isInstanceOf(BadRecordException.class)
        .hasMessageContaining("the event for topic prompts cannot be written");
  }

  @Test
  void shouldTellNoCredentialsOfANamedOnesRegistry() {
    for (int which : new int[] {8, 9}) {
      assertThatThrownBy(() -> read(which))
          .isInstanceOf(which == 8 ? RegistryUnavailableException.class : BadRecordException.class)
          .hasStackTraceContaining("http://[hidden]@r")
          .satisfies(e -> assertThat(RegistryTest.trace(e)).doesNotContain("s3cret"));
      assertThatThrownBy(() -> write(which))
          .satisfies(e -> assertThat(RegistryTest.trace(e)).doesNotContain("s3cret"));
    }
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

  @Test
  void shouldLetAWholeFamilyKnowOfOneOutage() throws IOException {
    AtomicInteger asked = new AtomicInteger();
    HttpServer registry =
        HttpServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0), 0);
    registry.createContext(
        "/",
        exchange -> {
          asked.incrementAndGet();
          exchange.sendResponseHeaders(503, -1);
          exchange.close();
        });
    registry.start();
    String url = "http://127.0.0.1:" + registry.getAddress().getPort();
    EventSerdes.Family family =
        EventSerdes.family(
            AvroSerde.class.getName(), Map.of("schema.registry.url", url, "max.retries", "0"));
    try (Serde<PromptEvent> prompts = family.of(PromptEvent.class);
        Serde<CancelEvent> cancels = family.of(CancelEvent.class)) {
      assertThatThrownBy(() -> prompts.serializer().serialize("a", new PromptEvent()))
          .isInstanceOf(RegistryUnavailableException.class);
      int once = asked.get();
      assertThat(once).isPositive();
      assertThatThrownBy(() -> cancels.serializer().serialize("b", new CancelEvent()))
          .isInstanceOf(RegistryUnavailableException.class)
          .hasMessageContaining("not asked again");
      assertThat(asked).hasValue(once);
    } finally {
      registry.stop(0);
    }
  }
}
