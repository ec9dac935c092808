package dev.millrace.topology.cli;

import dev.millrace.topology.ClientSettings;
import dev.millrace.topology.DeadLetter;
import dev.millrace.topology.WorkerConfig;
import java.time.Duration;
import java.util.ArrayList;
import java.util.BitSet;
import java.util.Comparator;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.function.BiPredicate;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndTimestamp;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/**
 * The dead letters' topic as it is when the command begins, read partition by partition. Keeps one
 * bit for each record, and what one fetch brings. Whoever makes it closes it; for one thread.
 */
final class DeadLetterTopic implements AutoCloseable {
  private static final Duration PATIENCE = Duration.ofSeconds(30);
  private static final Duration POLL = Duration.ofMillis(200);

  /** A record that is larger still comes, alone. */
  private static final int FETCH_BYTES = 1 << 20;

  private static final int POLL_RECORDS = 50;

  private final KafkaConsumer<byte[], byte[]> consumer;
  private final List<TopicPartition> partitions = new ArrayList<>();
  private final Map<TopicPartition, Long> begins;
  private final Map<TopicPartition, Long> ends;
  private final Map<TopicPartition, BitSet> replayed = new HashMap<>();

  /**
   * Connects, and sees how far the topic goes.
   *
   * @throws Failures.CommandFailedException if there is no such topic
   * @throws org.apache.kafka.common.KafkaException if the broker does not answer
   */
  DeadLetterTopic(WorkerConfig config) {
    Map<String, Object> settings = ClientSettings.consumer(config);
    settings.put(ConsumerConfig.ALLOW_AUTO_CREATE_TOPICS_CONFIG, false);
    settings.put(ConsumerConfig.FETCH_MAX_BYTES_CONFIG, FETCH_BYTES);
    settings.put(ConsumerConfig.MAX_PARTITION_FETCH_BYTES_CONFIG, FETCH_BYTES);
    settings.put(ConsumerConfig.MAX_POLL_RECORDS_CONFIG, POLL_RECORDS);
    settings.put(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest");
    String topic = config.topics().deadLetters();
    consumer =
        new KafkaConsumer<>(settings, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    try {
      consumer
          .partitionsFor(topic, PATIENCE)
          .forEach(p -> partitions.add(new TopicPartition(topic, p.partition())));
      partitions.sort(Comparator.comparingInt(TopicPartition::partition));
      if (partitions.isEmpty()) {
        throw new Failures.CommandFailedException(
            "the broker at %s has no topic %s".formatted(config.bootstrapServers(), topic));
      }
      begins = consumer.beginningOffsets(partitions, PATIENCE);
      ends = consumer.endOffsets(partitions, PATIENCE);
    } catch (RuntimeException e) {
      consumer.close();
      throw e;
    }
  }

  /** Notes which dead letters are marked as replayed, among those that may match. */
  void readMarks(DeadLetterFilter filter) {
    read(
        filter,
        record -> {
          long offset = DeadLetter.replayedOffset(record);
          TopicPartition partition = new TopicPartition(record.topic(), record.partition());
          long bit = offset - begins.getOrDefault(partition, 0L);
          // A mark stands behind its letter; whatever else it says is not to be believed.
          if (bit >= 0 && offset < record.offset() && bit < Integer.MAX_VALUE) {
            replayed.computeIfAbsent(partition, p -> new BitSet()).set((int) bit);
          }
          return true;
        });
  }

  /** Whether a dead letter is marked as replayed; after {@link #readMarks}. */
  boolean replayed(DeadLetter letter, TopicPartition partition) {
    BitSet bits = replayed.get(partition);
    long bit = letter.offset() - begins.getOrDefault(partition, 0L);
    return bits != null && bit >= 0 && bit < Integer.MAX_VALUE && bits.get((int) bit);
  }

  /**
   * Hands on each dead letter that matches, in the order of partition and offset.
   *
   * @param take takes a letter and whether it was replayed; says whether it counts for the limit
   * @param between runs between two fetches
   */
  void each(DeadLetterFilter filter, BiPredicate<DeadLetter, Boolean> take, Runnable between) {
    int[] left = {filter.limit()};
    read(
        filter,
        record -> {
          DeadLetter letter = DeadLetter.read(record);
          if (letter != null && left[0] > 0 && filter.matches(letter)) {
            TopicPartition partition = new TopicPartition(record.topic(), record.partition());
            left[0] -= take.test(letter, replayed(letter, partition)) ? 1 : 0;
          }
          return left[0] > 0;
        },
        between);
  }

  private void read(DeadLetterFilter filter, Take take) {
    read(filter, take, () -> {});
  }

  /** Takes a record; says whether there should be more. */
  private interface Take {
    boolean more(ConsumerRecord<byte[], byte[]> record);
  }

  private void read(DeadLetterFilter filter, Take take, Runnable between) {
    for (TopicPartition partition : partitions) {
      boolean wanted =
          filter.partitions().isEmpty() || filter.partitions().contains(partition.partition());
      if (wanted && !read(partition, filter.since(), take, between)) {
        return;
      }
    }
  }

  private boolean read(TopicPartition partition, long since, Take take, Runnable between) {
    long end = ends.getOrDefault(partition, 0L);
    consumer.assign(List.of(partition));
    seek(partition, since, end);
    long moved = System.nanoTime();
    // A transaction's own marks are offsets without records: the position says when it is done.
    long position = consumer.position(partition, PATIENCE);
    while (position < end) {
      for (ConsumerRecord<byte[], byte[]> record : consumer.poll(POLL)) {
        if (record.offset() < end && !take.more(record)) {
          return false;
        }
      }
      between.run();
      long now = consumer.position(partition, PATIENCE);
      if (now > position) {
        moved = System.nanoTime();
        position = now;
      } else if (System.nanoTime() - moved > PATIENCE.toNanos()) {
        throw new Failures.CommandFailedException(
            "the broker gave nothing of %s after offset %d for %d s"
                .formatted(partition, position, PATIENCE.toSeconds()));
      }
    }
    return true;
  }

  private void seek(TopicPartition partition, long since, long end) {
    if (since < 0) {
      consumer.seekToBeginning(List.of(partition));
      return;
    }
    OffsetAndTimestamp first =
        consumer.offsetsForTimes(Map.of(partition, since), PATIENCE).get(partition);
    consumer.seek(partition, first == null ? end : first.offset());
  }

  @Override
  public void close() {
    consumer.close();
  }
}
