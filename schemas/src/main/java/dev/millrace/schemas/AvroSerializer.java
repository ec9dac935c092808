package dev.millrace.schemas;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.util.Map;
import org.apache.avro.Schema;
import org.apache.avro.io.BinaryEncoder;
import org.apache.avro.io.EncoderFactory;
import org.apache.avro.specific.SpecificDatumWriter;
import org.apache.avro.specific.SpecificRecord;
import org.apache.kafka.common.serialization.Serializer;
import org.jspecify.annotations.Nullable;

/**
 * Writes an event in the registry's format: {@code 0x00}, the 4-byte id of its schema under the
 * subject {@code TOPIC-value} (or {@code TOPIC-key}), Avro. Safe for several threads.
 *
 * <p>{@link #close()} closes the registry client that {@link #configure} made.
 */
public final class AvroSerializer<T extends SpecificRecord> implements Serializer<T> {
  private @Nullable Registry registry;
  private boolean isKey;

  /** Where the last event went, and most likely the next one goes. */
  private volatile @Nullable Target<T> last;

  /** Events of one schema on one topic; its writer has no state. */
  private record Target<T>(
      String topic, Schema schema, byte[] prefix, SpecificDatumWriter<T> writer) {}

  /** To be configured. */
  public AvroSerializer() {}

  AvroSerializer(Registry registry, boolean isKey) {
    this.registry = registry;
    this.isKey = isKey;
  }

  @Override
  public void configure(Map<String, ?> settings, boolean isKey) {
    this.isKey = isKey;
    registry = Registry.connect(RegistryConfig.of(settings));
    last = null;
  }

  /**
   * Asks for the id of an event's schema now, so that a registry that goes down before the first
   * event is written does no harm.
   *
   * @throws RegistryUnavailableException if the registry gives no answer or refuses the schema
   */
  public void prepare(String topic, Class<? extends SpecificRecord> type) {
    int unused = registry().id(subject(topic), EventTypes.schemaOf(type));
  }

  /**
   * The event's bytes; null for null.
   *
   * @throws RegistryUnavailableException if the registry gives no answer or refuses the schema
   * @throws BadRecordException if the event has a null where its schema allows none
   */
  @Override
  public byte @Nullable [] serialize(String topic, @Nullable T event) {
    if (event == null) {
      return null;
    }
    Schema schema = event.getSchema();
    Target<T> target = last;
    if (target == null || !target.topic().equals(topic) || !target.schema().equals(schema)) {
      int id = registry().id(subject(topic), schema);
      target =
          new Target<>(
              topic,
              schema,
              WireFormat.prefix(id),
              new SpecificDatumWriter<>(schema, EventTypes.writing()));
      last = target;
    }
    ByteArrayOutputStream out = new ByteArrayOutputStream(512);
    out.writeBytes(target.prefix());
    try {
      BinaryEncoder encoder = EncoderFactory.get().directBinaryEncoder(out, null);
      target.writer().write(event, encoder);
      encoder.flush();
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    } catch (RuntimeException e) {
      throw new BadRecordException(
          "the " + schema.getName() + " for topic " + topic + " cannot be written: " + e, e);
    }
    return out.toByteArray();
  }

  private String subject(String topic) {
    return topic + (isKey ? "-key" : "-value");
  }

  private Registry registry() {
    if (registry == null) {
      throw new IllegalStateException("configure() was not called");
    }
    return registry;
  }

  @Override
  public void close() {
    AvroSerde.close(registry);
  }
}
