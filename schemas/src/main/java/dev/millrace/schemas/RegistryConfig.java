package dev.millrace.schemas;

import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.kafka.common.config.ConfigException;
import org.jspecify.annotations.Nullable;

/**
 * The serde's settings. Names and meanings are those of Confluent's serdes, so that one map
 * configures either; credentials and TLS ({@code basic.auth.*}, {@code bearer.auth.*}, {@code
 * schema.registry.ssl.*}) go to the registry client as they are.
 *
 * @param urls of the registry's nodes
 * @param autoRegister whether a schema that the subject does not have yet is registered when it is
 *     first written
 * @param client settings for the registry client
 * @param eventClass the event that the topic holds; null: whichever of the events it turns out to
 *     be
 */
record RegistryConfig(
    List<String> urls,
    boolean autoRegister,
    Map<String, Object> client,
    @Nullable Class<?> eventClass) {
  /** Comma-separated URLs; {@code mock://NAME} is a registry inside this JVM, for tests. */
  static final String URL = "schema.registry.url";

  static final String AUTO_REGISTER = "auto.register.schemas";

  /** Ours alone: Confluent's serdes do not know it and need it not. */
  static final String EVENT_CLASS = "millrace.event.class";

  static final String CONNECT_TIMEOUT = "http.connect.timeout.ms";
  static final String READ_TIMEOUT = "http.read.timeout.ms";

  /** The client's own are a minute each: a stream thread must not stand that long. */
  private static final int DEFAULT_CONNECT_TIMEOUT_MS = 3_000;

  private static final int DEFAULT_READ_TIMEOUT_MS = 5_000;

  static RegistryConfig of(Map<String, ?> settings) {
    String url = text(settings, URL);
    if (url == null || url.isBlank()) {
      throw new ConfigException(URL + " is not set: give the schema registry's address");
    }
    Map<String, Object> client = new HashMap<>();
    settings.forEach(
        (name, value) -> {
          if (value != null) {
            client.put(name, value);
          }
        });
    client.putIfAbsent(CONNECT_TIMEOUT, DEFAULT_CONNECT_TIMEOUT_MS);
    client.putIfAbsent(READ_TIMEOUT, DEFAULT_READ_TIMEOUT_MS);
    String register = text(settings, AUTO_REGISTER);
    return new RegistryConfig(
        urls(settings),
        register == null || bool(register),
        Map.copyOf(client),
        eventClass(settings.get(EVENT_CLASS)));
  }

  /** Of the registry's nodes; none if none are set. */
  static List<String> urls(Map<String, ?> settings) {
    String urls = text(settings, URL);
    return urls == null
        ? List.of()
        : Arrays.stream(urls.split(",")).map(String::strip).filter(u -> !u.isEmpty()).toList();
  }

  private static boolean bool(String text) {
    return switch (text.strip()) {
      case "true" -> true;
      case "false" -> false;
      default -> throw new ConfigException(AUTO_REGISTER, text, "it must be true or false");
    };
  }

  private static @Nullable Class<?> eventClass(@Nullable Object value) {
    if (value == null || value instanceof Class<?>) {
      return (Class<?>) value;
    }
    Class<?> known = EventTypes.byName(value.toString());
    if (known == null) {
      throw new ConfigException(EVENT_CLASS, value, "it must be one of " + EventTypes.ALL);
    }
    return known;
  }

  private static @Nullable String text(Map<String, ?> settings, String name) {
    Object value = settings.get(name);
    return value == null ? null : value.toString();
  }
}
