package dev.millrace.topology;

import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.common.config.TopicConfig;

/**
 * The topics that a worker needs, with the settings they need. The stores' changelogs are made by
 * Kafka Streams itself, with the settings of {@link WorkerTopology}.
 */
public final class Topics {
  /** Room above a record's own bytes for the batch that wraps it. */
  static final int BATCH_OVERHEAD = 64 * 1024;

  private Topics() {}

  /** What the topics are called. */
  public record Names(
      String prompts,
      String cancels,
      String completions,
      String toolCalls,
      String chunks,
      String deadLetters) {

    /** All of them, prompts first. */
    public List<String> all() {
      return List.of(prompts, cancels, completions, toolCalls, chunks, deadLetters);
    }
  }

  /** Every topic to make: {@code topics create} hands them to Kafka's admin client. */
  public static List<NewTopic> required(WorkerConfig config) {
    Map<String, String> settings =
        Map.of(
            TopicConfig.MAX_MESSAGE_BYTES_CONFIG,
            Integer.toString(config.maxPromptBytes() + BATCH_OVERHEAD));
    return config.topics().all().stream()
        .map(
            name ->
                new NewTopic(name, config.partitions(), config.replicationFactor())
                    .configs(settings))
        .toList();
  }
}
