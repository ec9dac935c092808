package dev.millrace.topology.supervisor;

import dev.millrace.topology.Environment;
import dev.millrace.topology.WorkerConfig;
import dev.millrace.topology.local.ParentWatch;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.OptionalLong;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * One worker of a {@link WorkerSupervisor}: a process at a time, started again when it ends. A
 * thread of its own runs it; the supervisor makes, starts and stops it.
 */
final class WorkerProcess implements Runnable {
  private static final Logger log = LoggerFactory.getLogger(WorkerProcess.class);
  private static final Duration POLL = Duration.ofMillis(500);

  /** What a worker is at. */
  enum State {
    STARTING,
    READY,
    NOT_READY,
    STUCK,
    PAUSING,
    ENDED
  }

  /** What a worker answered when it was asked how it is. */
  record Answer(State state, String reason) {}

  /** What the supervisor does for its workers. */
  interface Owner {
    /** Asks a worker's status server. */
    Answer ask(int port);

    /** The worker cannot be brought to run. */
    void gaveUp(String why, boolean settings);
  }

  private final String label;
  private final WorkerSupervisor.Launch launch;
  private final Map<String, String> settings;
  private final Backoff backoff;
  private final WorkerSupervisor.Patience patience;
  private final Owner owner;
  private final PrintStream logs;
  private final CountDownLatch stop = new CountDownLatch(1);
  private @Nullable Process process;
  private volatile int port;
  private volatile int starts;
  private volatile Answer answer = new Answer(State.STARTING, "is starting");
  private volatile int exitCode;

  WorkerProcess(
      String label,
      Map<String, String> settings,
      WorkerSupervisor.Launch launch,
      WorkerSupervisor.Patience patience,
      Owner owner) {
    this.label = label;
    this.settings = settings;
    this.launch = launch;
    this.patience = patience;
    this.owner = owner;
    this.logs = launch.logs();
    this.backoff = new Backoff(patience.backoff(), launch.seed() * 31 + label.hashCode());
  }

  String label() {
    return label;
  }

  Answer answer() {
    return answer;
  }

  /** The port of its status server; 0 while it has none. */
  int port() {
    return port;
  }

  int restarts() {
    return Math.max(0, starts - 1);
  }

  /** The exit code of the last process; 128 + the signal where one ended it. */
  int exitCode() {
    return exitCode;
  }

  /** The process's id; -1 while there is none. */
  synchronized long pid() {
    return process == null || !process.isAlive() ? -1 : process.pid();
  }

  @Override
  public void run() {
    try {
      while (stop.getCount() > 0) {
        Process started = start();
        if (started == null) {
          break;
        }
        Duration ready = watch(started);
        exitCode = started.exitValue();
        port = 0;
        if (stop.getCount() == 0 || !again(ready)) {
          break;
        }
      }
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    } finally {
      answer = new Answer(State.ENDED, "has ended with code " + exitCode);
      kill();
    }
  }

  /** Pauses before the next start; false if there is none. */
  private boolean again(Duration ready) throws InterruptedException {
    if (WorkerSupervisor.NOT_TO_BE_REPEATED.contains(exitCode)) {
      owner.gaveUp(
          "worker %s ended with code %d, which another start does not change; its own lines above"
                  .formatted(label, exitCode)
              + " say what is wrong",
          true);
      return false;
    }
    OptionalLong pause = backoff.ended(ready);
    if (pause.isEmpty()) {
      owner.gaveUp(
          "worker %s was started %d times and never came to run, it last ended with code %d; its own"
                  .formatted(label, starts, exitCode)
              + " lines above say why",
          false);
      return false;
    }
    answer =
        new Answer(
            State.PAUSING,
            "ended with code %d and starts again in %d ms".formatted(exitCode, pause.getAsLong()));
    log.warn("worker {} {}", label, answer.reason());
    return !stop.await(pause.getAsLong(), TimeUnit.MILLISECONDS);
  }

  private synchronized @Nullable Process start() {
    if (stop.getCount() == 0) {
      return null;
    }
    List<String> command = new ArrayList<>();
    command.add(Environment.java().toString());
    command.addAll(launch.jvmFlags());
    command.add("-D" + Environment.WORKER + "=" + label);
    command.add("-cp");
    command.add(Environment.classPath());
    command.add(ParentWatch.class.getName());
    command.add(launch.mainClass());
    command.addAll(launch.args());
    ProcessBuilder builder = new ProcessBuilder(command);
    // They stand among the flags already.
    builder.environment().remove("JAVA_TOOL_OPTIONS");
    builder.environment().remove("JDK_JAVA_OPTIONS");
    settings.forEach(
        (name, value) -> builder.environment().put(WorkerConfig.variable(name), value));
    answer = new Answer(State.STARTING, "is starting");
    starts++;
    try {
      Process started = builder.start();
      process = started;
      pump("out", started.getInputStream(), started);
      pump("err", started.getErrorStream(), started);
      log.info("worker {} is process {}", label, started.pid());
      return started;
    } catch (IOException e) {
      exitCode = -1;
      owner.gaveUp("worker " + label + " cannot be started: " + e.getMessage(), false);
      return null;
    }
  }

  private void pump(String name, InputStream from, Process started) {
    Thread.ofPlatform()
        .daemon()
        .name("worker-" + label + "-" + name)
        .start(
            () -> {
              try (BufferedReader lines =
                  new BufferedReader(new InputStreamReader(from, StandardCharsets.UTF_8))) {
                for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                  said(line, started);
                }
              } catch (IOException e) {
                // The pipe breaks when the process is killed.
                log.debug("worker {} says no more on {}", label, name, e);
              }
            });
  }

  private void said(String line, Process by) {
    if (line.startsWith(WorkerSupervisor.STATUS_PORT)) {
      synchronized (this) {
        if (by == process && by.isAlive()) {
          port = Integer.parseInt(line.substring(WorkerSupervisor.STATUS_PORT.length()).strip());
        }
      }
    } else {
      logs.println(launch.prefixed() ? "[worker " + label + "] " + line : line);
    }
  }

  /**
   * Asks it how it is until it ends; returns how long it was ready, counted from the first time.
   */
  private Duration watch(Process started) throws InterruptedException {
    long readySince = 0;
    long stuckSince = 0;
    while (!started.waitFor(POLL.toMillis(), TimeUnit.MILLISECONDS)) {
      int asked = port;
      if (asked == 0) {
        continue;
      }
      Answer now = owner.ask(asked);
      long at = System.nanoTime();
      if (now.state() == State.READY && readySince == 0) {
        readySince = at;
      }
      if (now.state() != State.STUCK) {
        stuckSince = 0;
      } else if (stuckSince == 0) {
        stuckSince = at;
        log.warn("worker {} {}", label, now.reason());
      } else if (at - stuckSince > patience.stuck().toNanos() && stop.getCount() > 0) {
        log.error("worker {} is killed: it {}", label, now.reason());
        started.destroyForcibly();
      }
      answer = now;
    }
    return readySince == 0
        ? Duration.ZERO
        : Duration.ofNanos(Math.max(1, System.nanoTime() - readySince));
  }

  /** SIGTERM; there is no next process. Does not wait. */
  synchronized void stop() {
    stop.countDown();
    Process running = process;
    if (running != null) {
      // Process.destroy() would close the pipe too, and ParentWatch would end the child at once.
      boolean unused = running.toHandle().destroy();
    }
  }

  /** SIGKILL. */
  synchronized void kill() {
    Process running = process;
    if (running != null) {
      running.destroyForcibly();
    }
  }
}
