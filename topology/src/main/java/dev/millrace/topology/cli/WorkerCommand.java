package dev.millrace.topology.cli;

import dev.millrace.topology.WorkerConfig;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;

/** {@code millrace worker}. */
@Command(
    name = "worker",
    description = {
      "Loads the model, joins the group and answers prompts until it is told to end.",
      "On SIGTERM it stops reading, finishes what it has begun within drain.grace, and exits with"
          + " 0;",
      "with 3 if the time was over: the next worker resumes those prompts."
    })
@SuppressWarnings("NullAway.Init")
public final class WorkerCommand implements Callable<Integer> {
  @Mixin private ConfigOption config;

  @Override
  public Integer call() {
    WorkerConfig settings = config.load();
    if (settings.jsonLogs()) {
      Logs.json(null);
    }
    return WorkerRun.run(settings, Models.load(settings));
  }
}
