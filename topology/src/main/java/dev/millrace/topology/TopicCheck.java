package dev.millrace.topology;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.Config;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.KafkaFuture;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.config.TopicConfig;
import org.apache.kafka.common.errors.AuthenticationException;
import org.apache.kafka.common.errors.AuthorizationException;
import org.apache.kafka.common.errors.UnknownTopicOrPartitionException;

/** Looks at the topics before a worker starts, so that what is wrong is said before it hurts. */
final class TopicCheck {
  private static final int TIMEOUT_S = 60;

  private TopicCheck() {}

  /**
   * @throws ConfigException if a topic is missing, or the cancels' partitions are not as many as
   *     the prompts', or the broker refuses these settings
   * @throws StartException if the broker cannot be asked
   */
  static void run(WorkerConfig config, OutputLimits limits) {
    try (Admin admin = Admin.create(ClientSettings.admin(config))) {
      Map<String, TopicDescription> topics = describe(config, admin);
      Topics.Names names = config.topics();
      int prompts = partitions(topics, names.prompts());
      int cancels = partitions(topics, names.cancels());
      if (prompts != cancels) {
        throw new ConfigException(
            "topic %s has %d partitions and %s has %d: a cancel finds its prompt only if they have"
                    .formatted(names.prompts(), prompts, names.cancels(), cancels)
                + " equally many");
      }
      for (String topic :
          Set.of(names.completions(), names.toolCalls(), names.chunks(), names.deadLetters())) {
        limits.topicTakes(topic, maxMessageBytes(admin, topic));
      }
    } catch (AuthenticationException
        | AuthorizationException
        | org.apache.kafka.common.config.ConfigException e) {
      throw new ConfigException(
          "cannot use the broker at " + config.bootstrapServers() + ": " + e, e);
    } catch (KafkaException e) {
      throw new StartException(
          "cannot use the broker at " + config.bootstrapServers() + ": " + e, e);
    }
  }

  private static Map<String, TopicDescription> describe(WorkerConfig config, Admin admin) {
    Map<String, TopicDescription> found = new HashMap<>();
    List<String> missing = new ArrayList<>();
    Map<String, KafkaFuture<TopicDescription>> asked =
        admin.describeTopics(config.topics().all()).topicNameValues();
    asked.forEach(
        (topic, answer) -> {
          try {
            found.put(topic, get(answer));
          } catch (UnknownTopicOrPartitionException e) {
            missing.add(topic);
          }
        });
    if (!missing.isEmpty()) {
      throw new ConfigException(
          "the broker at %s has no topic %s: make them with ./millrace topics create --config FILE"
              .formatted(config.bootstrapServers(), String.join(", ", missing)));
    }
    return found;
  }

  private static int partitions(Map<String, TopicDescription> topics, String topic) {
    TopicDescription description = topics.get(topic);
    return description == null ? 0 : description.partitions().size();
  }

  private static long maxMessageBytes(Admin admin, String topic) {
    ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
    try {
      Config config = get(admin.describeConfigs(Set.of(resource)).all()).get(resource);
      ConfigEntry entry = config == null ? null : config.get(TopicConfig.MAX_MESSAGE_BYTES_CONFIG);
      return entry == null || entry.value() == null
          ? Long.MAX_VALUE
          : Long.parseLong(entry.value());
    } catch (AuthorizationException e) {
      // Not allowed to look: then the first refusal teaches the limit.
      return Long.MAX_VALUE;
    }
  }

  private static <T> T get(KafkaFuture<T> future) {
    try {
      return future.get(TIMEOUT_S, TimeUnit.SECONDS);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new StartException("interrupted while asking the broker", e);
    } catch (TimeoutException e) {
      throw new StartException("the broker did not answer within " + TIMEOUT_S + " s", e);
    } catch (ExecutionException e) {
      if (e.getCause() instanceof RuntimeException cause) {
        throw cause;
      }
      throw new StartException("the broker cannot be asked: " + e.getCause(), e);
    }
  }
}
