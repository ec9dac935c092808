package dev.millrace.topology;

import dev.millrace.schemas.AvroSerde;
import dev.millrace.schemas.RegistryUnavailableException;
import java.util.Map;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.avro.specific.SpecificRecord;
import org.apache.kafka.common.errors.SerializationException;
import org.apache.kafka.common.header.Headers;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serializer;
import org.jspecify.annotations.Nullable;

/**
 * Our serde behind a registry that a test can take down: Kafka makes it, so the switch is static.
 */
public final class SwitchableSerde implements Serde<SpecificRecord> {
  static volatile boolean readsFail;
  static volatile boolean writesFail;

  /** A header without which nothing can be read, as where it names the schema; null: none. */
  static volatile @Nullable String neededHeader;

  /** Questions that the registry did not answer. */
  static final AtomicInteger UNANSWERED = new AtomicInteger();

  private final AvroSerde<SpecificRecord> serde = new AvroSerde<>();

  @Override
  public void configure(Map<String, ?> settings, boolean isKey) {
    serde.configure(settings, isKey);
  }

  @Override
  public Serializer<SpecificRecord> serializer() {
    return (topic, event) -> {
      if (writesFail) {
        UNANSWERED.incrementAndGet();
        throw new RegistryUnavailableException("told to fail", null);
      }
      return serde.serializer().serialize(topic, event);
    };
  }

  @Override
  public Deserializer<SpecificRecord> deserializer() {
    return new Deserializer<>() {
      @Override
      public @Nullable SpecificRecord deserialize(String topic, byte[] data) {
        if (readsFail) {
          UNANSWERED.incrementAndGet();
          throw new RegistryUnavailableException("told to fail", null);
        }
        return serde.deserializer().deserialize(topic, data);
      }

      @Override
      public @Nullable SpecificRecord deserialize(String topic, Headers headers, byte[] data) {
        String needed = neededHeader;
        if (needed != null && !readsFail && headers.lastHeader(needed) == null) {
          throw new SerializationException("header " + needed + " is missing");
        }
        return deserialize(topic, data);
      }
    };
  }

  @Override
  public void close() {
    serde.close();
  }
}
