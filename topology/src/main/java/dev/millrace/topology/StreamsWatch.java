package dev.millrace.topology;

import io.micrometer.core.instrument.MeterRegistry;
import io.micrometer.core.instrument.binder.jvm.JvmGcMetrics;
import io.micrometer.core.instrument.binder.jvm.JvmMemoryMetrics;
import io.micrometer.core.instrument.binder.kafka.KafkaStreamsMetrics;
import io.micrometer.core.instrument.binder.system.ProcessorMetrics;
import io.micrometer.core.instrument.binder.system.UptimeMetrics;
import java.util.Map;
import org.apache.kafka.common.Metric;
import org.apache.kafka.common.MetricName;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.TaskMetadata;
import org.apache.kafka.streams.ThreadMetadata;

/**
 * Looks at Kafka Streams from outside, and puts its own metrics and the virtual machine's among
 * ours. The worker makes and closes it. Safe for several threads.
 */
final class StreamsWatch implements AutoCloseable {
  private final KafkaStreams streams;
  private final KafkaStreamsMetrics kafka;
  private final JvmGcMetrics collections = new JvmGcMetrics();

  StreamsWatch(KafkaStreams streams, MeterRegistry registry) {
    this.streams = streams;
    this.kafka = new KafkaStreamsMetrics(streams);
    kafka.bindTo(registry);
    collections.bindTo(registry);
    new JvmMemoryMetrics().bindTo(registry);
    new ProcessorMetrics().bindTo(registry);
    new UptimeMetrics().bindTo(registry);
  }

  /** What it is doing now. */
  WorkerHealth.Streams look() {
    return new WorkerHealth.Streams(
        streams.state().isRunningOrRebalancing(), partitions(), secondsSincePoll());
  }

  private int partitions() {
    int count = 0;
    for (ThreadMetadata thread : streams.metadataForLocalThreads()) {
      for (TaskMetadata task : thread.activeTasks()) {
        count += task.topicPartitions().size();
      }
    }
    return count;
  }

  private double secondsSincePoll() {
    return secondsSincePoll(streams.metrics());
  }

  /** Of the consumer that has polled least lately; those that restore stores poll on demand. */
  static double secondsSincePoll(Map<MetricName, ? extends Metric> metrics) {
    double most = 0;
    for (Map.Entry<MetricName, ? extends Metric> metric : metrics.entrySet()) {
      if (metric.getKey().name().equals("last-poll-seconds-ago")
          // An application's own name stands before it, and may be anything.
          && !metric.getKey().tags().getOrDefault("client-id", "").endsWith("-restore-consumer")
          && metric.getValue().metricValue() instanceof Number seconds) {
        most = Math.max(most, seconds.doubleValue());
      }
    }
    return most;
  }

  @Override
  public void close() {
    kafka.close();
    collections.close();
  }
}
