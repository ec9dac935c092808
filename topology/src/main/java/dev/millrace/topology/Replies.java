package dev.millrace.topology;

import dev.millrace.topology.ReplyOutbox.Refusal;
import dev.millrace.topology.ReplyOutbox.Reply;
import io.opentelemetry.context.Context;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.Set;
import java.util.regex.Pattern;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.Headers;
import org.apache.kafka.common.header.internals.RecordHeaders;
import org.jspecify.annotations.Nullable;

/**
 * Answers requests where they ask for it, by the headers of Spring's {@code ReplyingKafkaTemplate}:
 * {@code kafka_replyTopic}, {@code kafka_replyPartition} (4 bytes, big-endian) and {@code
 * kafka_correlationId}, which is echoed. A reply is a copy: the outcome goes to its own topic
 * whatever becomes of the reply, so that a request cannot make the worker lose an answer by naming
 * a topic that cannot be written to. Belongs to the stream thread, which never waits here.
 */
final class Replies {
  static final String TOPIC = "kafka_replyTopic";
  static final String PARTITION = "kafka_replyPartition";

  /** On the outcome: why there is no reply although one was asked for, if that is known by then. */
  static final String REFUSED = "millrace.reply.refused";

  /** Largest key of a prompt that a refusal takes over, bytes. */
  static final int MOST_REFUSED_KEY = 64 * 1024;

  private static final Pattern NAME = Pattern.compile("[a-zA-Z0-9._-]{1,249}");
  private static final int LONGEST_PROBLEM = 200;

  private final ReplyOutbox outbox;
  private final WorkerMetrics metrics;
  private final Pattern allowed;
  private final Set<String> own;

  Replies(Services services) {
    WorkerConfig config = services.config();
    this.outbox = services.replies();
    this.metrics = services.metrics();
    this.allowed = config.replyTopics();
    this.own = Set.copyOf(config.topics().all());
  }

  /**
   * Sends a copy of an answer where its request asks for one, or else notes in the answer's own
   * headers why not.
   *
   * @param headers of the answer
   */
  void answer(PromptRecord record, byte[] key, byte @Nullable [] value, Headers headers) {
    String problem = reply(record, key, value, headers);
    if (problem != null) {
      String cut =
          problem.length() <= LONGEST_PROBLEM
              ? problem
              : problem.substring(0, LONGEST_PROBLEM) + "…";
      headers.add(REFUSED, cut.getBytes(StandardCharsets.UTF_8));
    }
  }

  /**
   * Tells who asked that the prompt became a dead letter: a reply without a value, with the reason
   * in its headers.
   *
   * @param letter headers of the dead letter, without the prompt's own
   */
  void refuse(PromptRecord record, Iterable<Header> letter) {
    Headers headers = new RecordHeaders();
    Carried.of(record).forEach(headers::add);
    for (Header header : letter) {
      if (DeadLetters.FOR_REPLIES.contains(header.key())) {
        headers.add(header);
      }
    }
    byte[] key = record.key();
    if (key == null || key.length > MOST_REFUSED_KEY) {
      // Never none: a compacted topic takes no record without a key.
      String place = record.topic() + "-" + record.partition() + "@" + record.offset();
      key = place.getBytes(StandardCharsets.UTF_8);
    }
    // There is no answer that could say why there is no reply.
    reply(record, key, null, headers);
  }

  /** Why there is none although one was asked for; null otherwise. */
  private @Nullable String reply(
      PromptRecord record, byte[] key, byte @Nullable [] value, Headers headers) {
    byte[] name = last(record, TOPIC);
    if (name == null) {
      return null;
    }
    String topic = new String(name, StandardCharsets.UTF_8);
    byte[] partition = last(record, PARTITION);
    String problem = problem(record, topic, partition);
    if (problem != null) {
      metrics.replyRefused(Refusal.ADDRESS);
      return problem;
    }
    int number = partition == null ? -1 : ByteBuffer.wrap(partition).getInt();
    return outbox.offer(
        new Reply(topic, number, key, value, new RecordHeaders(headers), Context.current()));
  }

  private @Nullable String problem(PromptRecord record, String topic, byte @Nullable [] partition) {
    if (!NAME.matcher(topic).matches()) {
      return TOPIC + " is no name of a topic";
    }
    if (own.contains(topic)) {
      return "topic " + shown(topic) + " is one of the worker's own";
    }
    if (topic.startsWith("__") || topic.endsWith("-changelog") || topic.endsWith("-repartition")) {
      return "topic " + shown(topic) + " is one of Kafka's own";
    }
    if (!allowed.matcher(topic).matches()) {
      return "reply.topics does not allow topic " + shown(topic);
    }
    byte[] correlation = last(record, Carried.CORRELATION);
    if (correlation != null && correlation.length > Carried.MOST_CORRELATION) {
      return "%s has %d bytes, at most %d are echoed"
          .formatted(Carried.CORRELATION, correlation.length, Carried.MOST_CORRELATION);
    }
    if (partition != null && partition.length != Integer.BYTES) {
      return "%s has %d bytes, it must be a number of 4".formatted(PARTITION, partition.length);
    }
    if (partition != null && ByteBuffer.wrap(partition).getInt() < 0) {
      return "%s is %d".formatted(PARTITION, ByteBuffer.wrap(partition).getInt());
    }
    return null;
  }

  private static String shown(String topic) {
    return topic.length() <= 100 ? topic : topic.substring(0, 100) + "…";
  }

  private static byte @Nullable [] last(PromptRecord record, String name) {
    return Carried.last(record.headers(), name);
  }
}
