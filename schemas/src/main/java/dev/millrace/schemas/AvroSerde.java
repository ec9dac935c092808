package dev.millrace.schemas;

import io.confluent.kafka.schemaregistry.client.SchemaRegistryClient;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.util.HashMap;
import java.util.Map;
import org.apache.avro.specific.SpecificRecord;
import org.apache.kafka.common.serialization.Serde;
import org.jspecify.annotations.Nullable;

/**
 * Millrace's Avro serde on the Confluent Schema Registry client. It takes the settings of
 * Confluent's {@code SpecificAvroSerde} ({@code schema.registry.url}, {@code
 * auto.register.schemas}, credentials, TLS, timeouts), so that either can stand in for the other.
 *
 * <p>Its failures are of two kinds: {@link BadRecordException} and {@link
 * RegistryUnavailableException}. Confluent's serdes throw Kafka's {@code SerializationException}
 * for both.
 *
 * <p>Safe for several threads. Whoever made it closes it.
 */
public final class AvroSerde<T extends SpecificRecord> implements Serde<T> {
  private AvroSerializer<T> serializer = new AvroSerializer<>();
  private AvroDeserializer<T> deserializer = new AvroDeserializer<>();

  /** For {@link #configure}; reads any of the events unless {@code millrace.event.class} is set. */
  public AvroSerde() {}

  /**
   * Uses a client that the caller made and that {@link #close()} closes. Records that name their
   * schema by GUID are refused, since the client has no call for that.
   */
  public AvroSerde(Class<T> type, SchemaRegistryClient client, boolean autoRegister) {
    use(new Registry(client, autoRegister), type, false);
  }

  /** Configured already; reads one kind of event and refuses others. */
  public static <T extends SpecificRecord> AvroSerde<T> of(Class<T> type, Map<String, ?> settings) {
    Map<String, Object> all = new HashMap<>(settings);
    all.put(RegistryConfig.EVENT_CLASS, type);
    AvroSerde<T> serde = new AvroSerde<>();
    serde.configure(all, false);
    return serde;
  }

  /** On a registry that others use as well; closing it closes that. */
  static <T extends SpecificRecord> AvroSerde<T> on(Registry registry, Class<T> type) {
    AvroSerde<T> serde = new AvroSerde<>();
    serde.use(registry, type, false);
    return serde;
  }

  @Override
  public void configure(Map<String, ?> settings, boolean isKey) {
    RegistryConfig config = RegistryConfig.of(settings);
    use(Registry.connect(config), config.eventClass(), isKey);
  }

  private void use(Registry registry, @Nullable Class<?> type, boolean isKey) {
    serializer = new AvroSerializer<>(registry, isKey);
    deserializer = new AvroDeserializer<>(registry, type, isKey);
  }

  @Override
  public AvroSerializer<T> serializer() {
    return serializer;
  }

  @Override
  public AvroDeserializer<T> deserializer() {
    return deserializer;
  }

  @Override
  public void close() {
    serializer.close();
    deserializer.close();
  }

  static void close(@Nullable Registry registry) {
    if (registry == null) {
      return;
    }
    try {
      registry.close();
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }
}
