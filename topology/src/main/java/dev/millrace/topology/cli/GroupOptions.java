package dev.millrace.topology.cli;

import java.util.Map;
import picocli.CommandLine.Option;

/** How the workers of a command form their group. */
@SuppressWarnings("NullAway.Init")
public final class GroupOptions {
  @Option(
      names = "--guarantee",
      paramLabel = "NAME",
      defaultValue = "at_least_once",
      description = "at_least_once or exactly_once_v2 (default: ${DEFAULT-VALUE}).")
  private String guarantee;

  @Option(
      names = "--protocol",
      paramLabel = "NAME",
      defaultValue = "classic",
      description = "classic or streams (default: ${DEFAULT-VALUE}).")
  private String protocol;

  /** Kafka's {@code processing.guarantee}. */
  public String guarantee() {
    return guarantee;
  }

  /** Kafka's {@code group.protocol}. */
  public String protocol() {
    return protocol;
  }

  /** As settings of a worker. */
  Map<String, String> settings() {
    return Map.of("kafka.processing.guarantee", guarantee, "kafka.group.protocol", protocol);
  }

  @Override
  public String toString() {
    return guarantee + ", " + protocol + " protocol";
  }
}
