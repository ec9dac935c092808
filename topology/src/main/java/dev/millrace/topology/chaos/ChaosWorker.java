package dev.millrace.topology.chaos;

import dev.millrace.topology.SyntheticGenerator;
import dev.millrace.topology.WorkerConfig;
import dev.millrace.topology.cli.WorkerRun;
import java.nio.file.Path;

/** A whole worker process, as {@code millrace worker} is one, but with a synthetic engine. */
public final class ChaosWorker {
  private ChaosWorker() {}

  /** Takes the settings file, the file of its token log, and tokens a second for each prompt. */
  public static void main(String[] args) {
    WorkerConfig config = WorkerConfig.load(Path.of(args[0]));
    System.exit(
        WorkerRun.run(
            config,
            new LoggedGenerator(
                SyntheticGenerator.atRate(ChaosOptions.MODEL, Double.parseDouble(args[2])),
                TokenLog.create(Path.of(args[1])))));
  }
}
