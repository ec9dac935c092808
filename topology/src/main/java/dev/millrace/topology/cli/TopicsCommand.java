package dev.millrace.topology.cli;

import dev.millrace.topology.ClientSettings;
import dev.millrace.topology.Topics;
import dev.millrace.topology.WorkerConfig;
import java.io.PrintWriter;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.concurrent.ExecutionException;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AdminClientConfig;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.common.KafkaFuture;
import org.apache.kafka.common.errors.TopicExistsException;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Spec;

/** {@code millrace topics}. */
@Command(name = "topics", description = "Topics of a worker.", synopsisSubcommandLabel = "COMMAND")
@SuppressWarnings("NullAway.Init")
public final class TopicsCommand {
  @Command(
      name = "create",
      description = {
        "Makes the topics that a worker needs, with the settings they need.",
        "A topic that exists stays as it is."
      })
  int create(@Mixin ConfigOption config) {
    PrintWriter out = spec.commandLine().getOut();
    WorkerConfig settings = config.load();
    create(settings)
        .forEach((topic, made) -> out.println((made ? "made    " : "exists  ") + topic));
    out.flush();
    return 0;
  }

  @Spec private CommandSpec spec;

  /**
   * Makes the topics that are missing.
   *
   * @return each topic, and whether it was made
   */
  public static Map<String, Boolean> create(WorkerConfig config) {
    List<NewTopic> topics = Topics.required(config);
    Map<String, Boolean> made = new LinkedHashMap<>();
    Map<String, Object> settings = ClientSettings.admin(config);
    settings.putIfAbsent(AdminClientConfig.DEFAULT_API_TIMEOUT_MS_CONFIG, "15000");
    settings.putIfAbsent(AdminClientConfig.REQUEST_TIMEOUT_MS_CONFIG, "10000");
    try (Admin admin = Admin.create(settings)) {
      Map<String, KafkaFuture<Void>> results = admin.createTopics(topics).values();
      for (NewTopic topic : topics) {
        try {
          Objects.requireNonNull(results.get(topic.name())).get();
          made.put(topic.name(), true);
        } catch (ExecutionException e) {
          if (!(e.getCause() instanceof TopicExistsException)) {
            throw new Failures.CommandFailedException(
                "cannot make the topic "
                    + topic.name()
                    + " at "
                    + config.bootstrapServers()
                    + ": "
                    + Failures.describe(e.getCause()));
          }
          made.put(topic.name(), false);
        }
      }
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new Failures.CommandFailedException("interrupted while topics were made");
    }
    return made;
  }
}
