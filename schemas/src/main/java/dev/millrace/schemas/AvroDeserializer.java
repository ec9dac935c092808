package dev.millrace.schemas;

import dev.millrace.schemas.WireFormat.Framed;
import java.io.IOException;
import java.util.Collections;
import java.util.Map;
import java.util.WeakHashMap;
import org.apache.avro.Schema;
import org.apache.avro.specific.SpecificRecord;
import org.apache.kafka.common.header.Headers;
import org.apache.kafka.common.serialization.Deserializer;
import org.jspecify.annotations.Nullable;

/**
 * Reads an event in the registry's format with the schema of its generated class; what its writer
 * did not know is filled with defaults. The bytes and the schemas that they name are taken for
 * hostile: see {@link BoundedDecoder}, {@link Allowance} and {@link SchemaLimits}. Safe for several
 * threads.
 *
 * <p>{@link #close()} closes the registry client that {@link #configure} made.
 */
public final class AvroDeserializer<T extends SpecificRecord> implements Deserializer<T> {
  private @Nullable Registry registry;
  private @Nullable Class<?> expected;
  private boolean isKey;

  /** By the writer's schema, for as long as the registry's client keeps that. */
  private final Map<Schema, Known> kinds = Collections.synchronizedMap(new WeakHashMap<>());

  /**
   * What events of one writer's schema are here.
   *
   * @param direct null if they are not laid out as the reader's schema says
   */
  private record Known(
      Class<? extends SpecificRecord> type, Schema reader, @Nullable DirectReader direct) {}

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
    Known known = known(writer);
    if (known == null || (expected != null && !expected.equals(known.type()))) {
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
      event = read(writer, known, in);
    } catch (IOException | RuntimeException e) {
      throw new BadRecordException(
          "the record on topic "
              + topic
              + " does not read as "
              + known.type().getSimpleName()
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
              + known.type().getSimpleName());
    }
    return event;
  }

  private @Nullable Known known(Schema writer) {
    Known known = kinds.get(writer);
    if (known == null) {
      Class<? extends SpecificRecord> type = EventTypes.byName(writer.getFullName());
      if (type == null) {
        return null;
      }
      Schema reader = EventTypes.schemaOf(type);
      known = new Known(type, reader, DirectReader.of(writer, reader));
      kinds.put(writer, known);
    }
    return known;
  }

  @SuppressWarnings("unchecked") // The class is that of the event.
  private T read(Schema writer, Known known, BoundedDecoder in) throws IOException {
    Allowance memory = new Allowance(in.left());
    DirectReader direct = known.direct();
    return direct == null
        ? new BoundedReader<T>(writer, known.reader(), memory).read(null, in)
        : (T) direct.read(in, memory);
  }

  @Override
  public void close() {
    AvroSerde.close(registry);
  }
}
