package dev.millrace.topology.cli;

import dev.millrace.topology.WorkerConfig;
import java.nio.file.Path;
import picocli.CommandLine.Option;

/** {@code --config FILE}, which every command that talks to a cluster takes. */
@SuppressWarnings("NullAway.Init")
final class ConfigOption {
  @Option(
      names = "--config",
      required = true,
      paramLabel = "FILE",
      description = "Settings (docs/operations.md lists them).")
  private Path file;

  Path file() {
    return file;
  }

  WorkerConfig load() {
    return WorkerConfig.load(file);
  }
}
