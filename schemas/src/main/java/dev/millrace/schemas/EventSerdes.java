package dev.millrace.schemas;

import io.confluent.kafka.schemaregistry.client.rest.exceptions.RestClientException;
import java.io.EOFException;
import java.io.IOException;
import java.util.HashMap;
import java.util.Map;
import org.apache.avro.specific.SpecificRecord;
import org.apache.kafka.common.config.ConfigException;
import org.apache.kafka.common.errors.InvalidConfigurationException;
import org.apache.kafka.common.errors.SerializationException;
import org.apache.kafka.common.header.Headers;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serializer;
import org.jspecify.annotations.Nullable;

/**
 * Makes the serde that a setting names: {@link AvroSerde}, or another on the class path, such as
 * Confluent's {@code SpecificAvroSerde}. Whatever it is, what it throws is a {@link
 * BadRecordException} or a {@link RegistryUnavailableException}.
 */
public final class EventSerdes {
  private EventSerdes() {}

  /**
   * A configured serde for the values of topics that hold one kind of event. The caller closes it.
   *
   * @param className of a {@link Serde} with a constructor without parameters
   * @throws ConfigException if there is no such serde, or it does not accept the settings
   */
  public static <T extends SpecificRecord> Serde<T> create(
      Class<T> type, String className, Map<String, ?> settings) {
    if (className.equals(AvroSerde.class.getName())) {
      return AvroSerde.of(type, settings);
    }
    Serde<?> serde;
    try {
      serde =
          Class.forName(className).asSubclass(Serde.class).getDeclaredConstructor().newInstance();
    } catch (ReflectiveOperationException | ClassCastException | LinkageError e) {
      throw new ConfigException(
          "the serde class "
              + className
              + " is not on the class path, is no Serde, or has no public constructor without"
              + " parameters: "
              + e);
    }
    Map<String, Object> all = new HashMap<>(settings);
    // Confluent's makes generic records without this.
    all.putIfAbsent("specific.avro.reader", true);
    serde.configure(all, false);
    // Makes sure that Avro trusts the event's class whichever data model the serde brings.
    EventTypes.data().getSchema(type);
    return new Typed<>(type, serde, Secrets.of(RegistryConfig.urls(settings)));
  }

  /** Makes serdes that belong together. */
  public interface Family {
    /** A configured serde for one kind of event. Closing one of a family may close all. */
    <T extends SpecificRecord> Serde<T> of(Class<T> type);
  }

  /**
   * Serdes as {@link #create} makes them; those of {@link AvroSerde} share one registry client, so
   * that what one of them knows all know, of an outage too.
   *
   * @throws ConfigException if there is no such serde, or it does not accept the settings
   */
  public static Family family(String className, Map<String, ?> settings) {
    if (className.equals(AvroSerde.class.getName())) {
      return new Sharing(Registry.connect(RegistryConfig.of(settings)));
    }
    return new Apart(className, settings);
  }

  private record Sharing(Registry registry) implements Family {
    @Override
    public <T extends SpecificRecord> Serde<T> of(Class<T> type) {
      return AvroSerde.on(registry, type);
    }
  }

  private record Apart(String className, Map<String, ?> settings) implements Family {
    @Override
    public <T extends SpecificRecord> Serde<T> of(Class<T> type) {
      return create(type, className, settings);
    }
  }

  /** What reading a record failed of, told apart by causes: the failures come as one type. */
  private static SerializationException readFailure(String topic, RuntimeException e) {
    if (e instanceof BadRecordException || e instanceof RegistryUnavailableException) {
      return (SerializationException) e;
    }
    for (Throwable cause = e; cause != null; cause = cause.getCause()) {
      if (isRefusal(cause)) {
        return outage(cause, e);
      }
      if (cause instanceof RestClientException rest) {
        if (Registry.blamesTheRecord(rest)) {
          break;
        }
        return outage(cause, e);
      }
      if (cause instanceof EOFException) {
        break;
      }
      if (cause instanceof IOException) {
        return outage(cause, e);
      }
    }
    return new BadRecordException("the record on topic " + topic + " is unreadable: " + e, e);
  }

  /**
   * What writing an event failed of. Nothing that the registry answers is the event's fault: the
   * schema is ours, and where a subject does not have it, somebody can still register it.
   */
  private static SerializationException writeFailure(String topic, RuntimeException e) {
    if (e instanceof BadRecordException || e instanceof RegistryUnavailableException) {
      return (SerializationException) e;
    }
    for (Throwable cause = e; cause != null; cause = cause.getCause()) {
      if (isRefusal(cause)
          || cause instanceof RestClientException
          || cause instanceof IOException) {
        return outage(cause, e);
      }
    }
    return new BadRecordException("the event for topic " + topic + " cannot be written: " + e, e);
  }

  /** Confluent's serdes drop the registry's answer for this where its code is of three digits. */
  private static boolean isRefusal(Throwable e) {
    return e instanceof InvalidConfigurationException;
  }

  private static RegistryUnavailableException outage(Throwable cause, RuntimeException e) {
    return new RegistryUnavailableException("the schema registry failed: " + cause, e);
  }

  private record Typed<T extends SpecificRecord>(Class<T> type, Serde<?> serde, Secrets secrets)
      implements Serde<T> {

    @Override
    public Serializer<T> serializer() {
      @SuppressWarnings("unchecked")
      Serializer<T> inner = (Serializer<T>) serde.serializer();
      return new Serializer<>() {
        @Override
        public byte @Nullable [] serialize(String topic, T event) {
          try {
            return inner.serialize(topic, event);
          } catch (RuntimeException e) {
            throw secrets.hide(writeFailure(topic, e));
          }
        }

        @Override
        public byte @Nullable [] serialize(String topic, Headers headers, T event) {
          try {
            return inner.serialize(topic, headers, event);
          } catch (RuntimeException e) {
            throw secrets.hide(writeFailure(topic, e));
          }
        }
      };
    }

    @Override
    public Deserializer<T> deserializer() {
      Deserializer<?> inner = serde.deserializer();
      return new Deserializer<>() {
        @Override
        public @Nullable T deserialize(String topic, byte[] data) {
          try {
            return cast(topic, inner.deserialize(topic, data));
          } catch (RuntimeException e) {
            throw secrets.hide(readFailure(topic, e));
          }
        }

        @Override
        public @Nullable T deserialize(String topic, Headers headers, byte[] data) {
          try {
            return cast(topic, inner.deserialize(topic, headers, data));
          } catch (RuntimeException e) {
            throw secrets.hide(readFailure(topic, e));
          }
        }
      };
    }

    private @Nullable T cast(String topic, @Nullable Object value) {
      if (value != null && !type.isInstance(value)) {
        throw new BadRecordException(
            "the record on topic "
                + topic
                + " was read as "
                + value.getClass().getName()
                + "; what is read here is "
                + type.getName());
      }
      return type.cast(value);
    }

    @Override
    public void close() {
      serde.close();
    }
  }
}
