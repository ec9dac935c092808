package dev.millrace.tests;

import dev.millrace.topology.SyntheticGenerator;
import dev.millrace.topology.WorkerConfig;
import dev.millrace.topology.cli.WorkerRun;
import java.nio.file.Path;

/** A whole worker process, as {@code millrace worker} is one, but with a synthetic generator. */
public final class SyntheticWorker {
  private SyntheticWorker() {}

  /** Takes the settings file and how many tokens a second each prompt gets. */
  public static void main(String[] args) {
    WorkerConfig config = WorkerConfig.load(Path.of(args[0]));
    System.exit(
        WorkerRun.run(config, SyntheticGenerator.atRate("synthetic", Double.parseDouble(args[1]))));
  }
}
