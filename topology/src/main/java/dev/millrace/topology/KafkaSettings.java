package dev.millrace.topology;

import java.util.Map;
import java.util.Properties;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.streams.StreamsConfig;

/**
 * What Kafka Streams is configured with: our defaults, then what the file says under {@code
 * kafka.}.
 */
final class KafkaSettings {
  /** Kafka's own 30 s would repeat 30 s of completions after each kill. */
  static final int COMMIT_MS = 200;

  /** Readers of committed records see an answer only when its transaction ends. */
  private static final int TRANSACTION_MS = 50;

  /** Bounds how late a punctuation, and so a result, can run. */
  private static final int POLL_MS = 5;

  private static final int LINGER_MS = 5;

  /**
   * A commit retires many prompts at once, and a task takes many records in a row: in Kafka's own
   * 16 KiB that makes several batches for each partition, and what a batch costs, here and at the
   * broker, hardly depends on its size.
   */
  private static final int BATCH_BYTES = 64 * 1024;

  /** Bounds what is read after the gate closed. */
  private static final int BUFFERED_RECORDS = 64;

  private static final long LEAST_BUFFER = 32L * 1024 * 1024;
  private static final int SESSION_MS = 6_000;
  private static final int HEARTBEAT_MS = 1_500;

  private KafkaSettings() {}

  static Properties of(WorkerConfig config) {
    Map<String, String> given = config.kafka();
    Properties p = new Properties();
    p.put(StreamsConfig.APPLICATION_ID_CONFIG, config.applicationId());
    p.put(
        StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, config.exactlyOnce() ? TRANSACTION_MS : COMMIT_MS);
    p.put(StreamsConfig.POLL_MS_CONFIG, POLL_MS);
    p.put(StreamsConfig.BUFFERED_RECORDS_PER_PARTITION_CONFIG, BUFFERED_RECORDS);
    // At 0 an empty, paused partition with lag would hold back the cancels beside it.
    p.put(StreamsConfig.MAX_TASK_IDLE_MS_CONFIG, -1);
    p.put(StreamsConfig.ENSURE_EXPLICIT_INTERNAL_RESOURCE_NAMING_CONFIG, true);
    // Kafka warns at every start without it; there is no global table here.
    p.put(StreamsConfig.PROCESSING_EXCEPTION_HANDLER_GLOBAL_ENABLED_CONFIG, true);
    p.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, (int) config.replicationFactor());
    consumer(p, given, ConsumerConfig.MAX_POLL_RECORDS_CONFIG, BUFFERED_RECORDS);
    producer(p, given, ProducerConfig.LINGER_MS_CONFIG, LINGER_MS);
    producer(p, given, ProducerConfig.BATCH_SIZE_CONFIG, BATCH_BYTES);
    producer(
        p,
        given,
        ProducerConfig.MAX_REQUEST_SIZE_CONFIG,
        config.maxPromptBytes() + Topics.BATCH_OVERHEAD);
    // The producer refuses what is larger than its buffer, however large a request may be.
    producer(
        p,
        given,
        ProducerConfig.BUFFER_MEMORY_CONFIG,
        Math.max(LEAST_BUFFER, 2L * (config.maxPromptBytes() + Topics.BATCH_OVERHEAD)));
    if (!config.streamsProtocol()) {
      // The streams protocol has these on the broker, as settings of the group.
      consumer(p, given, ConsumerConfig.SESSION_TIMEOUT_MS_CONFIG, SESSION_MS);
      consumer(p, given, ConsumerConfig.HEARTBEAT_INTERVAL_MS_CONFIG, HEARTBEAT_MS);
      p.put(StreamsConfig.NUM_STANDBY_REPLICAS_CONFIG, 1);
    }
    p.putAll(given);
    return p;
  }

  private static void consumer(
      Properties p, Map<String, String> given, String name, Object standard) {
    if (!given.containsKey(name) && !given.containsKey(StreamsConfig.consumerPrefix(name))) {
      p.put(StreamsConfig.mainConsumerPrefix(name), standard);
    }
  }

  /** A default with a prefix must not beat what the file says without one. */
  private static void producer(
      Properties p, Map<String, String> given, String name, Object standard) {
    if (!given.containsKey(name)) {
      p.put(StreamsConfig.producerPrefix(name), standard);
    }
  }
}
