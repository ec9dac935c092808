package dev.millrace.topology;

import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.function.Supplier;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.Config;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.DescribeConfigsOptions;
import org.apache.kafka.clients.admin.DescribeTopicsOptions;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.common.acl.AclOperation;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.config.TopicConfig;
import org.apache.kafka.common.errors.UnknownTopicOrPartitionException;
import org.jspecify.annotations.Nullable;

/**
 * Asks the broker about reply topics, beside the stream thread: a producer that is handed a topic
 * which does not exist would hold that thread for a minute. The worker makes it and closes it; the
 * admin client is made when the first topic is asked for.
 */
final class BrokerReplyTopics implements ReplyTopics, AutoCloseable {
  private static final int TIMEOUT_MS = 10_000;

  /** How long an answer holds: one that says yes is asked for again beside its use. */
  private static final long GOOD_NANOS = TimeUnit.SECONDS.toNanos(30);

  private static final long BAD_NANOS = TimeUnit.SECONDS.toNanos(5);

  /** Names come from outside: these bound what they can make the worker keep and ask. */
  private static final int MOST_KNOWN = 1_000;

  private static final int MOST_ASKED = 50;

  private record Answer(Found found, long until) {}

  private final Supplier<Admin> connect;
  private final Map<String, Answer> known = new ConcurrentHashMap<>();
  private final Set<String> asking = ConcurrentHashMap.newKeySet();
  private final AtomicBoolean closed = new AtomicBoolean();
  private @Nullable Admin admin;

  BrokerReplyTopics(Map<String, Object> adminSettings) {
    this(() -> Admin.create(adminSettings));
  }

  BrokerReplyTopics(Supplier<Admin> connect) {
    this.connect = connect;
  }

  @Override
  public @Nullable Found find(String topic) {
    Answer answer = known.get(topic);
    boolean old = answer == null || answer.until() - System.nanoTime() < 0;
    if (old && asking.size() < MOST_ASKED && asking.add(topic)) {
      ask(topic);
      answer = known.get(topic);
    }
    if (answer == null || (old && answer.found().problem() != null && asking.contains(topic))) {
      return null;
    }
    return answer.found();
  }

  @Override
  public void failed(String topic, String why) {
    put(topic, Found.unusable("topic " + topic + " did not take a reply: " + why));
  }

  private void ask(String topic) {
    try {
      Objects.requireNonNull(
              client()
                  .describeTopics(
                      List.of(topic),
                      new DescribeTopicsOptions()
                          .includeAuthorizedOperations(true)
                          .timeoutMs(TIMEOUT_MS))
                  .topicNameValues()
                  .get(topic))
          .whenComplete((description, failure) -> described(topic, description, failure));
    } catch (RuntimeException e) {
      answered(topic, Found.unusable("the broker cannot be asked: " + e.getMessage()));
    }
  }

  private void described(
      String topic, @Nullable TopicDescription description, @Nullable Throwable failure) {
    if (failure instanceof UnknownTopicOrPartitionException) {
      answered(topic, Found.unusable("there is no topic " + topic));
    } else if (failure != null || description == null) {
      answered(topic, Found.unusable("topic " + topic + " cannot be looked up: " + failure));
    } else if (description.isInternal()) {
      answered(topic, Found.unusable("topic " + topic + " is one of Kafka's own"));
    } else if (!mayWrite(description)) {
      answered(topic, Found.unusable("this worker may not write to topic " + topic));
    } else {
      askForItsLimit(topic, description.partitions().size());
    }
  }

  /** A write that is not allowed would end the worker. */
  private static boolean mayWrite(TopicDescription description) {
    Set<AclOperation> allowed = description.authorizedOperations();
    return allowed == null || allowed.isEmpty() || allowed.contains(AclOperation.WRITE);
  }

  private void askForItsLimit(String topic, int partitions) {
    ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
    try {
      Objects.requireNonNull(
              client()
                  .describeConfigs(
                      List.of(resource), new DescribeConfigsOptions().timeoutMs(TIMEOUT_MS))
                  .values()
                  .get(resource))
          .whenComplete(
              (config, failure) -> answered(topic, Found.usable(partitions, limit(config))));
    } catch (RuntimeException e) {
      answered(topic, Found.usable(partitions, Long.MAX_VALUE));
    }
  }

  /** Where it may not be looked up, a refusal teaches it. */
  private static long limit(@Nullable Config config) {
    ConfigEntry entry = config == null ? null : config.get(TopicConfig.MAX_MESSAGE_BYTES_CONFIG);
    return entry == null || entry.value() == null
        ? Long.MAX_VALUE
        : Math.max(1, Long.parseLong(entry.value()) - OutputLimits.RECORD_OVERHEAD);
  }

  private void answered(String topic, Found found) {
    put(topic, found);
    asking.remove(topic);
  }

  private void put(String topic, Found found) {
    if (known.size() >= MOST_KNOWN) {
      long now = System.nanoTime();
      known.values().removeIf(answer -> answer.until() - now < 0);
      if (known.size() >= MOST_KNOWN) {
        known.clear();
      }
    }
    long holds = found.problem() == null ? GOOD_NANOS : BAD_NANOS;
    known.put(topic, new Answer(found, System.nanoTime() + holds));
  }

  private synchronized Admin client() {
    if (closed.get()) {
      throw new IllegalStateException("the worker is closing");
    }
    if (admin == null) {
      admin = connect.get();
    }
    return admin;
  }

  @Override
  public synchronized void close() {
    closed.set(true);
    if (admin != null) {
      admin.close(java.time.Duration.ofSeconds(2));
    }
  }
}
