package dev.millrace.topology;

import java.util.Collection;
import java.util.List;
import java.util.Set;
import java.util.TreeSet;
import org.apache.kafka.clients.admin.AdminClientConfig;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.streams.StreamsConfig;

/**
 * Finds misspelt settings of Kafka's. Kafka itself takes any name, since plug-ins bring settings of
 * their own: only what is all but one of its names is refused.
 */
final class KafkaNames {
  /** So many letters wrong, missing or too many are a slip. */
  private static final int SLIP = 2;

  private static final List<String> PREFIXES =
      List.of(
          StreamsConfig.MAIN_CONSUMER_PREFIX,
          StreamsConfig.RESTORE_CONSUMER_PREFIX,
          StreamsConfig.GLOBAL_CONSUMER_PREFIX,
          StreamsConfig.CONSUMER_PREFIX,
          StreamsConfig.PRODUCER_PREFIX,
          StreamsConfig.ADMIN_CLIENT_PREFIX);

  private KafkaNames() {}

  /**
   * @param names without our prefix
   * @throws ConfigException if one is nearly a name of Kafka's
   */
  static void check(Collection<String> names) {
    Set<String> known = new TreeSet<>(StreamsConfig.configDef().names());
    known.addAll(ProducerConfig.configNames());
    known.addAll(ConsumerConfig.configNames());
    known.addAll(AdminClientConfig.configNames());
    List<String> sorted = List.copyOf(known);
    for (String name : names) {
      String bare = name;
      for (String prefix : PREFIXES) {
        if (name.startsWith(prefix)) {
          bare = name.substring(prefix.length());
          break;
        }
      }
      if (known.contains(bare)) {
        continue;
      }
      String nearest = Setting.nearest(bare, sorted);
      if (Setting.distance(bare, nearest) <= SLIP) {
        throw new ConfigException(
            "the setting 'kafka.%s' is unknown; the nearest known one is '%s'"
                .formatted(
                    name, "kafka." + name.substring(0, name.length() - bare.length()) + nearest));
      }
    }
  }
}
