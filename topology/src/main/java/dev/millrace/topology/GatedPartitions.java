package dev.millrace.topology;

import java.util.Collection;
import java.util.HashSet;
import java.util.Set;
import org.apache.kafka.clients.consumer.Consumer;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.common.TopicPartition;

/**
 * Pauses the prompts' partitions of one consumer while the gate is closed, and keeps apart what
 * Kafka Streams itself paused: a partition flows only if both want it. Used by the consumer's
 * thread alone.
 */
final class GatedPartitions {
  private final Gate gate;
  private final String promptsTopic;
  private final Consumer<byte[], byte[]> consumer;
  private final Set<TopicPartition> pausedByStreams = new HashSet<>();
  private final Set<TopicPartition> pausedByGate = new HashSet<>();

  GatedPartitions(Gate gate, String promptsTopic, Consumer<byte[], byte[]> consumer) {
    this.gate = gate;
    this.promptsTopic = promptsTopic;
    this.consumer = consumer;
  }

  /** The listener, with the tasks told before it hears that their partitions are taken away. */
  ConsumerRebalanceListener telling(ConsumerRebalanceListener listener) {
    return new ConsumerRebalanceListener() {
      @Override
      public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
        gate.handOver(
            partitions.stream()
                .filter(partition -> partition.topic().equals(promptsTopic))
                .map(TopicPartition::partition)
                .toList());
        listener.onPartitionsRevoked(partitions);
      }

      @Override
      public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
        listener.onPartitionsAssigned(partitions);
      }

      @Override
      public void onPartitionsLost(Collection<TopicPartition> partitions) {
        listener.onPartitionsLost(partitions);
      }
    };
  }

  /** To be called before each poll. */
  void beforePoll() {
    if (gate.open()) {
      if (!pausedByGate.isEmpty()) {
        Set<TopicPartition> resumed = new HashSet<>(pausedByGate);
        pausedByGate.clear();
        resumed.removeAll(pausedByStreams);
        resumed.retainAll(consumer.assignment());
        consumer.resume(resumed);
      }
      return;
    }
    // Each time anew: a partition that was just assigned comes unpaused.
    Set<TopicPartition> paused = new HashSet<>();
    for (TopicPartition partition : consumer.assignment()) {
      if (partition.topic().equals(promptsTopic)) {
        paused.add(partition);
      }
    }
    pausedByGate.clear();
    pausedByGate.addAll(paused);
    consumer.pause(paused);
  }

  /** Kafka Streams pauses. */
  void pause(Collection<TopicPartition> partitions) {
    pausedByStreams.addAll(partitions);
    consumer.pause(partitions);
  }

  /** Kafka Streams resumes; what the gate holds stays paused. */
  void resume(Collection<TopicPartition> partitions) {
    pausedByStreams.removeAll(partitions);
    Set<TopicPartition> flowing = new HashSet<>(partitions);
    flowing.removeAll(pausedByGate);
    consumer.resume(flowing);
  }

  /** What Kafka Streams believes to be paused. */
  Set<TopicPartition> paused() {
    Set<TopicPartition> paused = new HashSet<>(pausedByStreams);
    paused.retainAll(consumer.assignment());
    return paused;
  }
}
