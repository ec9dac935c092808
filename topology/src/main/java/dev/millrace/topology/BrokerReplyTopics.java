package dev.millrace.topology;

import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.function.Supplier;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.DescribeTopicsOptions;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.errors.UnknownTopicOrPartitionException;
import org.jspecify.annotations.Nullable;

/**
 * Asks the broker about reply topics, as an admin client, which unlike a producer makes no topic
 * come to be by asking. {@link BrokerReplies} owns and closes it, and its thread alone finds; the
 * client is made when the first topic is asked for.
 */
final class BrokerReplyTopics implements ReplyTopics {
  private static final int TIMEOUT_MS = 5_000;
  private static final long GOOD_NANOS = TimeUnit.SECONDS.toNanos(10);
  private static final long BAD_NANOS = TimeUnit.SECONDS.toNanos(5);

  /** Names come from outside: this bounds what they can make the worker keep. */
  private static final int MOST_KNOWN = 1_000;

  private record Answer(Found found, long until) {
    boolean holds() {
      return until - System.nanoTime() > 0;
    }
  }

  private final Supplier<Admin> connect;
  private final Map<String, Answer> known = new ConcurrentHashMap<>();
  private @Nullable Admin admin;

  BrokerReplyTopics(Supplier<Admin> connect) {
    this.connect = connect;
  }

  @Override
  public Found find(String topic) throws InterruptedException {
    Answer answer = known.get(topic);
    if (answer != null && answer.holds()) {
      return answer.found();
    }
    Found found = ask(topic);
    if (known.size() >= MOST_KNOWN) {
      known.clear();
    }
    long holds = found.problem() == null ? GOOD_NANOS : BAD_NANOS;
    known.put(topic, new Answer(found, System.nanoTime() + holds));
    return found;
  }

  @Override
  public @Nullable String problem(String topic) {
    Answer answer = known.get(topic);
    return answer == null || !answer.holds() ? null : answer.found().problem();
  }

  @Override
  public void forget(String topic) {
    known.remove(topic);
  }

  private Found ask(String topic) throws InterruptedException {
    try {
      if (admin == null) {
        admin = connect.get();
      }
      TopicDescription description =
          Objects.requireNonNull(
                  admin
                      .describeTopics(
                          List.of(topic), new DescribeTopicsOptions().timeoutMs(TIMEOUT_MS))
                      .topicNameValues()
                      .get(topic))
              .get();
      return description.isInternal()
          ? Found.unusable("topic " + topic + " is one of Kafka's own")
          : Found.usable(description.partitions().size());
    } catch (ExecutionException e) {
      Throwable cause = e.getCause();
      return Found.unusable(
          cause instanceof UnknownTopicOrPartitionException
              ? "there is no topic " + topic
              : "topic " + topic + " cannot be looked up: " + name(cause == null ? e : cause));
    } catch (KafkaException e) {
      return Found.unusable("the broker cannot be asked for topic " + topic + ": " + name(e));
    }
  }

  private static String name(Throwable problem) {
    return problem.getClass().getSimpleName();
  }

  @Override
  public void close() {
    if (admin != null) {
      admin.close(Duration.ZERO);
    }
  }
}
