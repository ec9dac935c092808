package dev.millrace.topology.cli;

import dev.millrace.topology.Environment;
import dev.millrace.topology.WorkerConfig;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine;
import picocli.CommandLine.ArgGroup;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Spec;

/** {@code millrace worker}. */
@Command(
    name = "worker",
    description = {
      "Loads the model, joins the group and answers prompts until it is told to end.",
      "On SIGTERM it stops reading, finishes what it has begun within drain.grace, and exits with"
          + " 0;",
      "with 3 if the time was over: the next worker resumes those prompts.",
      "With --workers or --gpus it starts several such processes and keeps them running; what they"
          + " measure and how they are is shown in one place, with a label worker."
    })
@SuppressWarnings("NullAway.Init")
public final class WorkerCommand implements Callable<Integer> {
  private static final int MOST = 1024;

  @Spec private CommandSpec spec;
  @Mixin private ConfigOption config;

  @ArgGroup private @Nullable Several several;

  /** How many processes, and what each computes on. */
  private static final class Several {
    @Option(
        names = "--workers",
        paramLabel = "N",
        required = true,
        description = "Runs N workers, which share the processor's cores.")
    private int workers;

    @Option(
        names = "--gpus",
        paramLabel = "N",
        required = true,
        split = ",",
        description = "Runs a worker on each of these GPUs, for example --gpus 0,1.")
    private @Nullable List<Integer> gpus;
  }

  @Override
  public Integer call() {
    Several wanted = several;
    if (wanted != null) {
      check(wanted);
    }
    WorkerConfig settings = config.load();
    if (settings.jsonLogs()) {
      Logs.json(Environment.worker());
    }
    if (wanted == null) {
      return WorkerRun.run(settings, Models.load(settings));
    }
    List<Integer> gpus = wanted.gpus;
    List<Map<String, String>> each =
        gpus == null
            ? SupervisorRun.onProcessor(settings, wanted.workers)
            : SupervisorRun.onGpus(gpus);
    return SupervisorRun.run(settings, config.file(), each);
  }

  private void check(Several wanted) {
    List<Integer> gpus = wanted.gpus;
    if (gpus == null && (wanted.workers < 1 || wanted.workers > MOST)) {
      throw new CommandLine.ParameterException(
          spec.commandLine(), "--workers must be 1 to " + MOST + ", not " + wanted.workers);
    }
    if (gpus != null
        && (gpus.stream().anyMatch(gpu -> gpu < 0 || gpu > 9999)
            || new HashSet<>(gpus).size() < gpus.size())) {
      throw new CommandLine.ParameterException(
          spec.commandLine(), "--gpus must be different numbers from 0, not " + gpus);
    }
  }
}
