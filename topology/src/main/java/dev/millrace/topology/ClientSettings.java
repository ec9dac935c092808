package dev.millrace.topology;

import java.util.HashMap;
import java.util.Map;
import java.util.Set;
import org.apache.kafka.clients.admin.AdminClientConfig;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.streams.StreamsConfig;

/**
 * What plain Kafka clients are configured with, beside a worker and from the same file: its
 * addresses, its security, and what stands under the client's own prefix. What makes a client part
 * of a group or of a transaction is left out.
 */
public final class ClientSettings {
  private static final Set<String> OF_A_GROUP =
      Set.of(
          ConsumerConfig.GROUP_PROTOCOL_CONFIG,
          ConsumerConfig.GROUP_ID_CONFIG,
          ConsumerConfig.GROUP_INSTANCE_ID_CONFIG,
          ProducerConfig.TRANSACTIONAL_ID_CONFIG);

  private ClientSettings() {}

  /** For a consumer that is given its partitions, and sees what is committed. */
  public static Map<String, Object> consumer(WorkerConfig config) {
    Map<String, Object> settings =
        known(
            config,
            ConsumerConfig.configNames(),
            StreamsConfig.CONSUMER_PREFIX,
            StreamsConfig.MAIN_CONSUMER_PREFIX);
    settings.put(ConsumerConfig.ISOLATION_LEVEL_CONFIG, "read_committed");
    settings.put(ConsumerConfig.ENABLE_AUTO_COMMIT_CONFIG, false);
    return settings;
  }

  /** For a producer that takes every record that a worker would. */
  public static Map<String, Object> producer(WorkerConfig config) {
    int request = config.maxPromptBytes() + Topics.BATCH_OVERHEAD;
    Map<String, Object> settings = new HashMap<>();
    settings.put(ProducerConfig.MAX_REQUEST_SIZE_CONFIG, request);
    settings.put(ProducerConfig.BUFFER_MEMORY_CONFIG, 2L * request);
    settings.putAll(known(config, ProducerConfig.configNames(), StreamsConfig.PRODUCER_PREFIX));
    settings.put(ProducerConfig.ACKS_CONFIG, "all");
    return settings;
  }

  /** For an admin client. */
  public static Map<String, Object> admin(WorkerConfig config) {
    return known(config, AdminClientConfig.configNames(), StreamsConfig.ADMIN_CLIENT_PREFIX);
  }

  private static Map<String, Object> known(
      WorkerConfig config, Set<String> names, String... prefixes) {
    Map<String, String> given = config.kafka();
    Map<String, Object> settings = new HashMap<>(given);
    for (String prefix : prefixes) {
      given.forEach(
          (name, value) -> {
            if (name.startsWith(prefix)) {
              settings.put(name.substring(prefix.length()), value);
            }
          });
    }
    settings.keySet().retainAll(names);
    settings.keySet().removeAll(OF_A_GROUP);
    return settings;
  }
}
