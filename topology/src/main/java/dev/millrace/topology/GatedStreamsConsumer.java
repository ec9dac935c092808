package dev.millrace.topology;

import java.time.Duration;
import java.util.Collection;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.internals.AsyncKafkaConsumer;
import org.apache.kafka.clients.consumer.internals.StreamsRebalanceData;
import org.apache.kafka.clients.consumer.internals.StreamsRebalanceListener;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.streams.internals.ConsumerWrapper;
import org.jspecify.annotations.Nullable;

/**
 * Puts the gate around the main consumer under the streams group protocol, where Kafka Streams does
 * not ask its client supplier but makes an instance of this class by name. The gate comes with the
 * consumer's configuration.
 */
public final class GatedStreamsConsumer extends ConsumerWrapper {
  /** Configuration key under which the {@link Gate} comes. */
  static final String GATE = "millrace.gate";

  /** Configuration key under which the name of the prompts' topic comes. */
  static final String PROMPTS_TOPIC = "millrace.prompts.topic";

  private @Nullable GatedPartitions partitions;
  private @Nullable Gate gate;

  @Override
  public void wrapConsumer(
      AsyncKafkaConsumer<byte[], byte[]> delegate,
      Map<String, Object> config,
      Optional<StreamsRebalanceData> streamsRebalanceData) {
    super.wrapConsumer(delegate, config, streamsRebalanceData);
    if (!(config.get(GATE) instanceof Gate given)
        || !(config.get(PROMPTS_TOPIC) instanceof String topic)) {
      throw new IllegalStateException("the consumer's configuration has no gate");
    }
    gate = given;
    partitions = new GatedPartitions(given, topic, delegate);
  }

  private GatedPartitions partitions() {
    if (partitions == null) {
      throw new IllegalStateException("no consumer was wrapped");
    }
    return partitions;
  }

  @Override
  public void subscribe(Collection<String> topics, StreamsRebalanceListener listener) {
    super.subscribe(
        topics,
        new StreamsRebalanceListener() {
          @Override
          public void onTasksRevoked(Set<StreamsRebalanceData.TaskId> tasks) {
            if (gate != null) {
              gate.handOver(tasks.stream().map(StreamsRebalanceData.TaskId::partitionId).toList());
            }
            listener.onTasksRevoked(tasks);
          }

          @Override
          public void onTasksAssigned(StreamsRebalanceData.Assignment assignment) {
            listener.onTasksAssigned(assignment);
          }

          @Override
          public void onAllTasksLost() {
            listener.onAllTasksLost();
          }
        });
  }

  @Override
  public ConsumerRecords<byte[], byte[]> poll(Duration timeout) {
    partitions().beforePoll();
    return super.poll(timeout);
  }

  @Override
  public void pause(Collection<TopicPartition> toPause) {
    partitions().pause(toPause);
  }

  @Override
  public void resume(Collection<TopicPartition> toResume) {
    partitions().resume(toResume);
  }

  @Override
  public Set<TopicPartition> paused() {
    return partitions().paused();
  }
}
