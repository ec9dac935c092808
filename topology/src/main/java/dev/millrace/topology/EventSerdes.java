package dev.millrace.topology;

import dev.millrace.schemas.AvroSerde;
import java.util.Map;
import java.util.function.Supplier;
import org.apache.avro.specific.SpecificRecord;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serializer;

/**
 * Makes the serde of the settings for each task. Our own is safe for several threads, so that all
 * tasks share one and the schemas that it knows; of others each task gets its own. The worker makes
 * and closes this.
 */
final class EventSerdes implements Supplier<Serde<SpecificRecord>>, AutoCloseable {
  private final Class<?> type;
  private final Map<String, String> settings;
  private final Serde<SpecificRecord> first;

  /**
   * @throws ConfigException if the class cannot be used or does not accept the settings
   */
  EventSerdes(WorkerConfig config) {
    String name = config.serdeClass();
    this.settings = config.serdeSettings();
    try {
      this.type = Class.forName(name);
    } catch (ClassNotFoundException | LinkageError e) {
      throw new ConfigException("serde.class is '" + name + "', which is not on the class path", e);
    }
    if (!Serde.class.isAssignableFrom(type)) {
      throw new ConfigException("serde.class is '" + name + "', which is no Serde");
    }
    this.first = make();
  }

  @SuppressWarnings("unchecked") // What it makes of the bytes is looked at before it is used.
  private Serde<SpecificRecord> make() {
    try {
      Serde<SpecificRecord> serde =
          (Serde<SpecificRecord>) type.getDeclaredConstructor().newInstance();
      serde.configure(settings, false);
      return serde;
    } catch (ReflectiveOperationException e) {
      throw new ConfigException(
          "serde.class is '" + type.getName() + "', which cannot be made: " + e, e);
    } catch (org.apache.kafka.common.config.ConfigException e) {
      throw new ConfigException(
          "the serde does not accept its settings (registry.url, registry.*, serde.*): "
              + e.getMessage(),
          e);
    }
  }

  @Override
  public Serde<SpecificRecord> get() {
    return type == AvroSerde.class ? new Shared(first) : make();
  }

  @Override
  public void close() {
    first.close();
  }

  /** A task closes it with itself; the serde inside stays. */
  private record Shared(Serde<SpecificRecord> serde) implements Serde<SpecificRecord> {
    @Override
    public Serializer<SpecificRecord> serializer() {
      return serde.serializer();
    }

    @Override
    public Deserializer<SpecificRecord> deserializer() {
      return serde.deserializer();
    }
  }
}
