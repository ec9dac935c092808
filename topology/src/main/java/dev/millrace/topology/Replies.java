package dev.millrace.topology;

import dev.millrace.topology.ReplyTopics.Found;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.ArrayDeque;
import java.util.HashSet;
import java.util.Set;
import java.util.regex.Pattern;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.Headers;
import org.apache.kafka.common.header.internals.RecordHeaders;
import org.apache.kafka.streams.processor.api.Record;
import org.jspecify.annotations.Nullable;

/**
 * Answers requests where they ask for it, by the headers of Spring's {@code ReplyingKafkaTemplate}:
 * {@code kafka_replyTopic}, {@code kafka_replyPartition} (4 bytes, big-endian) and {@code
 * kafka_correlationId}, which is echoed. A reply is a copy: the outcome goes to its own topic
 * whatever becomes of the reply, so that a request cannot make the worker lose an answer by naming
 * a topic that cannot be written to. Belongs to the stream thread.
 */
final class Replies {
  static final String TOPIC = "kafka_replyTopic";
  static final String PARTITION = "kafka_replyPartition";

  /** On the outcome: why there is no reply although one was asked for. */
  static final String REFUSED = "millrace.reply.refused";

  private static final Pattern NAME = Pattern.compile("[a-zA-Z0-9._-]{1,249}");

  /** Replies to records that nothing is stored of, while their topic is looked up. */
  private static final int MOST_WAITING = 1_000;

  private static final int LONGEST_PROBLEM = 200;

  private final TaskState task;
  private final Services services;
  private final Pattern allowed;
  private final Set<String> own;
  private final String changelogs;
  private final ArrayDeque<Refusal> waiting = new ArrayDeque<>();

  /**
   * Where a reply goes.
   *
   * @param partition -1: as the key decides
   * @param problem why it goes nowhere; null if it does
   * @param unknown that is not known yet
   */
  private record Way(String topic, int partition, @Nullable String problem, boolean unknown) {}

  private record Refusal(PromptRecord record, byte @Nullable [] key, Headers headers) {}

  Replies(TaskState task) {
    this.task = task;
    this.services = task.services;
    WorkerConfig config = services.config();
    this.allowed = config.replyTopics();
    this.own = new HashSet<>(config.topics().all());
    this.changelogs = config.applicationId() + "-";
  }

  /** Whether the record asks for a reply on a topic that is still being looked up. */
  boolean undecided(PromptRecord record) {
    Way way = way(record, 0);
    return way != null && way.unknown();
  }

  /**
   * Sends a copy of an answer where its request asks for one, or else notes in the answer's own
   * headers why not.
   *
   * @param headers of the answer
   */
  void answer(PromptRecord record, byte[] key, byte @Nullable [] value, Headers headers) {
    long size = key.length + (value == null ? 0 : value.length) + PromptRecord.headerBytes(headers);
    Way way = way(record, size);
    if (way == null) {
      return;
    }
    String problem = way.unknown() ? "its topic was not looked up in time" : way.problem();
    if (problem == null) {
      forward(way, key, value, headers);
    } else {
      services.metrics().repliesRefused.increment();
      headers.add(REFUSED, problem.getBytes(StandardCharsets.UTF_8));
    }
  }

  /**
   * Tells who asked that the prompt became a dead letter: a reply without a value, with the reason
   * in its headers.
   *
   * @param letter headers of the dead letter, without the prompt's own
   */
  void refuse(PromptRecord record, Iterable<Header> letter) {
    if (last(record, TOPIC) == null) {
      return;
    }
    Headers headers = new RecordHeaders();
    Carried.of(record).forEach(headers::add);
    for (Header header : letter) {
      if (DeadLetters.FOR_REPLIES.contains(header.key())) {
        headers.add(header);
      }
    }
    refuse(new Refusal(record.withoutValue(), record.key(), headers));
  }

  private void refuse(Refusal refusal) {
    Way way = way(refusal.record(), 0);
    if (way == null) {
      return;
    }
    if (way.unknown() && waiting.size() < MOST_WAITING) {
      waiting.add(refusal);
    } else if (way.unknown() || way.problem() != null) {
      services.metrics().repliesRefused.increment();
    } else {
      forward(way, refusal.key(), null, refusal.headers());
    }
  }

  /** Sends what waited for its topic to be looked up. */
  void retry() {
    for (int i = waiting.size(); i > 0; i--) {
      refuse(waiting.remove());
    }
  }

  private void forward(Way way, byte @Nullable [] key, byte @Nullable [] value, Headers headers) {
    services.metrics().replies.increment();
    Headers addressed = new RecordHeaders(headers);
    ReplySink.address(addressed, way.topic(), way.partition());
    task.context.forward(new Record<>(key, value, task.now(), addressed), ReplySink.NODE);
  }

  private @Nullable Way way(PromptRecord record, long size) {
    byte[] name = last(record, TOPIC);
    if (name == null) {
      return null;
    }
    String topic = new String(name, StandardCharsets.UTF_8);
    String problem = problem(record, topic);
    if (problem != null) {
      return refused(topic, problem);
    }
    Found found = services.replyTopics().find(topic);
    if (found == null) {
      return new Way(topic, -1, null, true);
    }
    if (found.problem() != null) {
      return refused(topic, found.problem());
    }
    long room = Math.min(found.maxBytes(), services.config().maxPromptBytes());
    if (size > room) {
      return refused(
          topic, "the answer has %d bytes, topic %s takes %d".formatted(size, shown(topic), room));
    }
    byte[] partition = last(record, PARTITION);
    if (partition == null) {
      return new Way(topic, -1, null, false);
    }
    int number = partition.length == Integer.BYTES ? ByteBuffer.wrap(partition).getInt() : -1;
    if (number < 0 || number >= found.partitions()) {
      return refused(
          topic,
          PARTITION
              + (partition.length == Integer.BYTES
                  ? " is %d, but topic %s has %d partitions"
                      .formatted(number, shown(topic), found.partitions())
                  : " has %d bytes, it must be a number of 4".formatted(partition.length)));
    }
    return new Way(topic, number, null, false);
  }

  private @Nullable String problem(PromptRecord record, String topic) {
    if (!NAME.matcher(topic).matches()) {
      return TOPIC + " is no name of a topic";
    }
    if (own.contains(topic) || topic.startsWith(changelogs) && topic.endsWith("-changelog")) {
      return "topic " + shown(topic) + " is one of the worker's own";
    }
    if (topic.startsWith("__")) {
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
    return null;
  }

  private static Way refused(String topic, String problem) {
    String cut =
        problem.length() <= LONGEST_PROBLEM ? problem : problem.substring(0, LONGEST_PROBLEM) + "…";
    return new Way(topic, -1, cut, false);
  }

  private static String shown(String topic) {
    return topic.length() <= 100 ? topic : topic.substring(0, 100) + "…";
  }

  private static byte @Nullable [] last(PromptRecord record, String name) {
    return Carried.last(record.headers(), name);
  }
}
