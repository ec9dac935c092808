package dev.millrace.topology.cli;

import dev.millrace.topology.Environment;
import dev.millrace.topology.Main;
import dev.millrace.topology.WorkerConfig;
import dev.millrace.topology.supervisor.WorkerSupervisor;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Several workers as the whole business of this process: they run until the process is told to end
 * (SIGTERM, SIGINT) or one of them cannot be brought to run. Closes the supervisor.
 */
final class SupervisorRun {
  private static final Logger LOG = LoggerFactory.getLogger(SupervisorRun.class);

  private final WorkerSupervisor supervisor;
  private final WorkerConfig config;
  private volatile boolean ended;

  private SupervisorRun(WorkerConfig config, WorkerSupervisor supervisor) {
    this.config = config;
    this.supervisor = supervisor;
  }

  /** Settings of workers that share the cores of this machine. */
  static List<Map<String, String>> onProcessor(WorkerConfig config, int workers) {
    int cores = Runtime.getRuntime().availableProcessors();
    List<Map<String, String>> each = new ArrayList<>();
    for (int i = 0; i < workers; i++) {
      each.add(
          config.engine().threads() < cores
              ? Map.of()
              : Map.of("engine.threads", Integer.toString(Math.max(1, cores / workers))));
    }
    return each;
  }

  /** Settings of workers that have a GPU each. */
  static List<Map<String, String>> onGpus(List<Integer> gpus) {
    return gpus.stream().map(gpu -> Map.of("engine.device", "cuda:" + gpu)).toList();
  }

  /**
   * Returns only if it fails, with the process's exit code; on a signal the process ends within.
   */
  static int run(WorkerConfig config, Path file, List<Map<String, String>> each) {
    WorkerSupervisor.Launch launch =
        new WorkerSupervisor.Launch(
            Environment.jvmFlags(),
            Main.class.getName(),
            List.of("worker", "--config", file.toAbsolutePath().toString()),
            System.err,
            !config.jsonLogs(),
            System.nanoTime());
    return new SupervisorRun(config, new WorkerSupervisor(config, each, launch)).run();
  }

  private int run() {
    Runtime.getRuntime().addShutdownHook(new Thread(this::endOnSignal, "supervisor-shutdown"));
    try {
      supervisor.start();
      supervisor.awaitEnding();
      if (supervisor.failure() == null) {
        // The shutdown hook is at work and ends the process.
        Thread.sleep(Long.MAX_VALUE);
      }
      LOG.error("{}; the other workers are told to end", supervisor.failure());
      return exitCode(supervisor.stop(config.drainGrace()));
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      return Failures.FAILED;
    } finally {
      ended = true;
      supervisor.close();
    }
  }

  private void endOnSignal() {
    if (ended) {
      return;
    }
    LOG.info("told to end: the workers finish what was begun, for {} at most", config.drainGrace());
    int code = Failures.FAILED;
    try {
      code = exitCode(supervisor.stop(config.drainGrace()));
    } finally {
      // Without this the exit code would be the signal's, whatever became of the prompts.
      Runtime.getRuntime().halt(code);
    }
  }

  private static int exitCode(WorkerSupervisor.End end) {
    return switch (end) {
      case DRAINED -> 0;
      case UNFINISHED -> Failures.UNFINISHED;
      case SETTINGS -> Failures.SETTINGS;
      case FAILED -> Failures.FAILED;
    };
  }
}
