package dev.millrace.topology;

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

  /** Bounds how late a punctuation, and so a result, can run. */
  private static final int POLL_MS = 5;

  private static final int LINGER_MS = 5;

  /** Bounds what is read after the gate closed. */
  private static final int BUFFERED_RECORDS = 64;

  private static final long LEAST_BUFFER = 32L * 1024 * 1024;
  private static final int SESSION_MS = 10_000;
  private static final int HEARTBEAT_MS = 3_000;

  private KafkaSettings() {}

  static Properties of(WorkerConfig config) {
    Properties p = new Properties();
    p.put(StreamsConfig.APPLICATION_ID_CONFIG, config.applicationId());
    p.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, COMMIT_MS);
    p.put(StreamsConfig.POLL_MS_CONFIG, POLL_MS);
    p.put(StreamsConfig.BUFFERED_RECORDS_PER_PARTITION_CONFIG, BUFFERED_RECORDS);
    p.put(
        StreamsConfig.mainConsumerPrefix(ConsumerConfig.MAX_POLL_RECORDS_CONFIG), BUFFERED_RECORDS);
    p.put(StreamsConfig.producerPrefix(ProducerConfig.LINGER_MS_CONFIG), LINGER_MS);
    p.put(
        StreamsConfig.producerPrefix(ProducerConfig.MAX_REQUEST_SIZE_CONFIG),
        config.maxPromptBytes() + Topics.BATCH_OVERHEAD);
    // The producer refuses what is larger than its buffer, however large a request may be.
    p.put(
        StreamsConfig.producerPrefix(ProducerConfig.BUFFER_MEMORY_CONFIG),
        Math.max(LEAST_BUFFER, 2L * (config.maxPromptBytes() + Topics.BATCH_OVERHEAD)));
    // At 0 an empty, paused partition with lag would hold back the cancels beside it.
    p.put(StreamsConfig.MAX_TASK_IDLE_MS_CONFIG, -1);
    p.put(StreamsConfig.ENSURE_EXPLICIT_INTERNAL_RESOURCE_NAMING_CONFIG, true);
    // Kafka warns at every start without it; there is no global table here.
    p.put(StreamsConfig.PROCESSING_EXCEPTION_HANDLER_GLOBAL_ENABLED_CONFIG, true);
    p.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, (int) config.replicationFactor());
    if (!config.streamsProtocol()) {
      // The streams protocol has these two on the broker, as settings of the group.
      p.put(StreamsConfig.mainConsumerPrefix(ConsumerConfig.SESSION_TIMEOUT_MS_CONFIG), SESSION_MS);
      p.put(
          StreamsConfig.mainConsumerPrefix(ConsumerConfig.HEARTBEAT_INTERVAL_MS_CONFIG),
          HEARTBEAT_MS);
      p.put(StreamsConfig.NUM_STANDBY_REPLICAS_CONFIG, 1);
    }
    p.putAll(config.kafka());
    return p;
  }
}
