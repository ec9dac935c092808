package dev.millrace.topology.cli;

import dev.millrace.inference.api.Generator;
import dev.millrace.topology.Worker;
import dev.millrace.topology.WorkerConfig;
import dev.millrace.topology.supervisor.WorkerSupervisor;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * A worker as the whole business of this process: it runs until the process is told to end
 * (SIGTERM, SIGINT) or the worker fails. Closes worker and generator, in this order.
 */
public final class WorkerRun {
  private static final Logger LOG = LoggerFactory.getLogger(WorkerRun.class);
  private static final long LOOK_MS = 100;

  private final Worker worker;
  private final Generator generator;
  private final WorkerConfig config;
  private volatile boolean ended;

  private WorkerRun(WorkerConfig config, Generator generator) {
    this.config = config;
    this.generator = generator;
    this.worker = new Worker(config, generator);
  }

  /**
   * Returns only if the worker fails, with the process's exit code. On a signal the process ends
   * within: with 0 if the prompts under way were finished, else with 3.
   */
  public static int run(WorkerConfig config, Generator generator) {
    return new WorkerRun(config, generator).run();
  }

  private int run() {
    try {
      Runtime.getRuntime().addShutdownHook(new Thread(this::endOnSignal, "worker-shutdown"));
      worker.start();
      WorkerSupervisor.announce(worker.statusPort());
      while (worker.state() != Worker.State.FAILED && worker.state() != Worker.State.STOPPED) {
        Thread.sleep(LOOK_MS);
      }
      if (worker.state() == Worker.State.STOPPED) {
        // The shutdown hook is at work and ends the process.
        Thread.sleep(Long.MAX_VALUE);
      }
      LOG.error("the worker failed; its prompts are resumed by the next one");
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    } finally {
      ended = true;
      worker.close();
      generator.close();
    }
    return Failures.FAILED;
  }

  private void endOnSignal() {
    if (ended) {
      return;
    }
    LOG.info("told to end: finishing what was begun, for {} at most", config.drainGrace());
    boolean drained = false;
    try {
      drained = worker.close(config.drainGrace());
      generator.close();
      LOG.info(drained ? "ended, nothing is under way" : "ended, the rest is saved");
    } finally {
      // Without this the exit code would be the signal's, whatever became of the prompts.
      Runtime.getRuntime().halt(drained ? 0 : Failures.UNFINISHED);
    }
  }
}
