package dev.millrace.topology;

import java.nio.charset.StandardCharsets;
import java.time.Instant;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.jspecify.annotations.Nullable;

/**
 * A dead letter as it is read back: the prompt's own record, and beside it what the worker wrote in
 * headers.
 *
 * @param partition of the dead letters' topic
 * @param offset there
 * @param reason one of {@link DeadLetters.Reason}, or what a newer version wrote
 * @param source where the prompt was read: topic
 * @param sourcePartition -1 if that does not stand in the headers
 * @param sourceOffset -1 if that does not stand in the headers
 * @param omitted bytes that the prompt's record had if it did not fit into the topic, and came
 *     without its value; -1: it is whole
 * @param headers the prompt's own
 */
public record DeadLetter(
    int partition,
    long offset,
    long timestamp,
    String reason,
    String promptId,
    String exception,
    String message,
    String stacktrace,
    String source,
    int sourcePartition,
    long sourceOffset,
    long omitted,
    byte @Nullable [] key,
    byte @Nullable [] value,
    List<Header> headers) {
  private static final String REPLAYED = "millrace.replayed.offset";

  public DeadLetter {
    headers = List.copyOf(headers);
  }

  /** The dead letter in a record; null if it holds none of ours. */
  public static @Nullable DeadLetter read(ConsumerRecord<byte[], byte[]> record) {
    List<Header> headers = List.of(record.headers().toArray());
    int begin = workersHeaders(headers);
    if (begin == headers.size()) {
      return null;
    }
    Map<String, String> ours = new HashMap<>();
    for (Header header : headers.subList(begin, headers.size())) {
      byte[] value = header.value();
      ours.put(header.key(), value == null ? "" : new String(value, StandardCharsets.UTF_8));
    }
    return new DeadLetter(
        record.partition(),
        record.offset(),
        record.timestamp(),
        ours.getOrDefault(DeadLetters.REASON, ""),
        ours.getOrDefault(DeadLetters.PROMPT_ID, ""),
        ours.getOrDefault(DeadLetters.EXCEPTION, ""),
        ours.getOrDefault(DeadLetters.MESSAGE, ""),
        ours.getOrDefault(DeadLetters.STACKTRACE, ""),
        ours.getOrDefault(DeadLetters.TOPIC, ""),
        (int) number(ours.get(DeadLetters.PARTITION)),
        number(ours.get(DeadLetters.OFFSET)),
        ours.containsKey(DeadLetters.OMITTED)
            ? Math.max(0, number(ours.get(DeadLetters.OMITTED)))
            : -1,
        record.key(),
        record.value(),
        headers.subList(0, begin));
  }

  /**
   * Where a worker's headers begin: it writes its reason first, and all of its own after those of
   * the prompt. The same names before it are the prompt's. The number of headers if there is none.
   */
  private static int workersHeaders(List<Header> headers) {
    for (int i = headers.size() - 1; i >= 0; i--) {
      if (headers.get(i).key().equals(DeadLetters.REASON)) {
        return i;
      }
    }
    return headers.size();
  }

  /**
   * If the record is a mark that a dead letter of its partition was replayed, the offset of that;
   * else -1. Marks stand on the dead letters' topic and are none themselves: whatever headers a
   * dead letter's prompt brought, it has a reason, which marks have not.
   */
  public static long replayedOffset(ConsumerRecord<byte[], byte[]> record) {
    Header mark = record.headers().lastHeader(REPLAYED);
    boolean letter = record.headers().lastHeader(DeadLetters.REASON) != null;
    return letter || mark == null || mark.value() == null
        ? -1
        : number(new String(mark.value(), StandardCharsets.UTF_8));
  }

  /**
   * The prompt's record as it came. Into the topic that it was read from it goes by the same
   * partition, whose task knows whether its id was answered; into another one as its key decides.
   *
   * @param partitions that the topic has
   */
  public ProducerRecord<byte[], byte[]> original(String topic, int partitions) {
    boolean back = topic.equals(source) && sourcePartition >= 0 && sourcePartition < partitions;
    return new ProducerRecord<>(topic, back ? sourcePartition : null, key, value, headers);
  }

  /**
   * The mark that it was replayed. Its value is empty and not null, which would delete dead letters
   * of the same key where the topic is compacted.
   *
   * @param to where the replayed record is
   */
  public ProducerRecord<byte[], byte[]> mark(String deadLetters, String to, Instant at) {
    return new ProducerRecord<>(
        deadLetters,
        partition,
        key,
        new byte[0],
        List.of(
            header(REPLAYED, Long.toString(offset)),
            header("millrace.replayed.to", to),
            header("millrace.replayed.at", at.toString())));
  }

  /** Bytes that it takes, nearly. */
  public long size() {
    return (key == null ? 0 : key.length)
        + (value == null ? 0 : value.length)
        + PromptRecord.headerBytes(headers);
  }

  private static Header header(String name, String value) {
    return new RecordHeader(name, value.getBytes(StandardCharsets.UTF_8));
  }

  private static long number(@Nullable String text) {
    try {
      return text == null ? -1 : Long.parseLong(text);
    } catch (NumberFormatException e) {
      return -1;
    }
  }
}
