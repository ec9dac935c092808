package dev.millrace.schemas;

import dev.millrace.schemas.WireFormat.Framed;
import java.io.IOException;
import java.util.Map;
import org.apache.avro.Schema;
import org.apache.avro.specific.SpecificRecord;
import org.apache.kafka.common.header.Headers;
import org.apache.kafka.common.serialization.Deserializer;
import org.jspecify.annotations.Nullable;

/**
 * Reads an event in the registry's format with the schema of its generated class; what its writer
 * did not know is filled with defaults. The bytes and the schemas that they name are taken for
 * hostile: see {@link BoundedDecoder}, {@link BoundedReader} and {@link SchemaLimits}. Safe for
 * several threads.
 *
 * <p>{@link #close()} closes the registry client that {@link #configure} made.
 */
public final class AvroDeserializer<T extends SpecificRecord> implements Deserializer<T> {
  private @Nullable Registry registry;
  private @Nullable Class<?> expected;
  private boolean isKey;

  /** To be configured. */
  public AvroDeserializer() {}

  AvroDeserializer(Registry registry, @Nullable Class<?> expected, boolean isKey) {
    this.registry = registry;
    this.expected = expected;
    this.isKey = isKey;
  }

  @Override
  public void configure(Map<String, ?> settings, boolean isKey) {
    this.isKey = isKey;
    RegistryConfig config = RegistryConfig.of(settings);
    registry = Registry.connect(config);
    expected = config.eventClass();
  }

  @Override
  public @Nullable T deserialize(String topic, byte @Nullable [] data) {
    return read(topic, null, data);
  }

  /**
   * The event; null for null.
   *
   * @throws BadRecordException if the record is at fault: it never gets better
   * @throws RegistryUnavailableException if the registry gives no answer: try again
   */
  @Override
  public @Nullable T deserialize(String topic, Headers headers, byte @Nullable [] data) {
    return read(topic, headers, data);
  }

  private @Nullable T read(String topic, @Nullable Headers headers, byte @Nullable [] data) {
    if (data == null) {
      return null;
    }
    if (registry == null) {
      throw new IllegalStateException("configure() was not called");
    }
    Framed framed = WireFormat.parse(data, headers, isKey);
    Schema writer = registry.schema(framed.schema());
    Class<? extends SpecificRecord> type = EventTypes.byName(writer.getFullName());
    if (type == null || (expected != null && !expected.equals(type))) {
      throw new BadRecordException(
          "the record on topic "
              + topic
              + " was written with "
              + framed.schema()
              + ", which is of "
              + writer.getFullName()
              + "; what is read here is "
              + (expected == null ? EventTypes.ALL : expected.getName()));
    }
    BoundedDecoder in = new BoundedDecoder(data, framed.offset());
    T event;
    try {
      event = new BoundedReader<T>(writer, EventTypes.schemaOf(type), in.left()).read(null, in);
    } catch (IOException | RuntimeException e) {
      throw new BadRecordException(
          "the record on topic "
              + topic
              + " does not read as "
              + type.getSimpleName()
              + " with "
              + framed.schema()
              + ": "
              + e.getMessage(),
          e);
    }
    if (in.left() > 0) {
      throw new BadRecordException(
          "the record on topic "
              + topic
              + " has "
              + in.left()
              + " bytes after the end of its "
              + type.getSimpleName());
    }
    return event;
  }

  @Override
  public void close() {
    AvroSerde.close(registry);
  }
}
