package dev.millrace.topology.local;

import dev.millrace.topology.Environment;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.concurrent.TimeUnit;
import org.jspecify.annotations.Nullable;

/**
 * A Java process of ours with its output in a file. Whoever starts it closes it; it ends with its
 * starter in any case (see {@link ParentWatch}).
 */
public final class ForkedJvm implements AutoCloseable {
  private static final int LAST_LINES = 30;

  private final String name;
  private final Process process;
  private final Path log;

  private ForkedJvm(String name, Process process, Path log) {
    this.name = name;
    this.process = process;
    this.log = log;
  }

  /**
   * How to start one.
   *
   * @param name for messages
   * @param jvmArgs flags and system properties; heap limits belong here
   * @param classPath null for that of this process
   * @param log gets standard output and error; appended to where it exists
   * @param directory working directory
   */
  public record Spec(
      String name,
      List<String> jvmArgs,
      @Nullable String classPath,
      String mainClass,
      List<String> args,
      Path log,
      @Nullable Path directory) {}

  /** Starts the process; does not wait until it is of use. */
  public static ForkedJvm start(Spec spec) {
    List<String> command = new ArrayList<>();
    command.add(Environment.java().toString());
    command.addAll(spec.jvmArgs());
    command.add("-cp");
    command.add(spec.classPath() == null ? Environment.classPath() : spec.classPath());
    command.add(ParentWatch.class.getName());
    command.add(spec.mainClass());
    command.addAll(spec.args());
    try {
      ProcessBuilder builder =
          new ProcessBuilder(command)
              .redirectErrorStream(true)
              .redirectOutput(ProcessBuilder.Redirect.appendTo(spec.log().toFile()));
      if (spec.directory() != null) {
        builder.directory(spec.directory().toFile());
      }
      // A setting meant for this process (a debugger's port, a heap) must not reach the child.
      builder.environment().remove("JAVA_TOOL_OPTIONS");
      builder.environment().remove("JDK_JAVA_OPTIONS");
      return new ForkedJvm(spec.name(), builder.start(), spec.log());
    } catch (IOException e) {
      throw new UncheckedIOException("cannot start " + spec.name() + " with " + command, e);
    }
  }

  /** A condition to wait for. */
  @FunctionalInterface
  public interface Probe {
    boolean holds() throws IOException, InterruptedException;
  }

  /**
   * Waits until the probe holds; an {@link IOException} of the probe counts as not yet.
   *
   * @throws IllegalStateException if the process ends before or the time is over; the message holds
   *     the end of its log
   */
  public void awaitReady(Duration timeout, Probe ready) {
    long deadline = System.nanoTime() + timeout.toNanos();
    while (true) {
      if (!process.isAlive()) {
        throw new IllegalStateException(
            name
                + " ended with code "
                + process.exitValue()
                + " before it was ready\n"
                + lastLog());
      }
      try {
        if (ready.holds()) {
          return;
        }
      } catch (IOException e) {
        // Not listening yet.
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
        throw new IllegalStateException("interrupted while " + name + " was starting", e);
      }
      if (System.nanoTime() > deadline) {
        throw new IllegalStateException(
            name + " was not ready within " + timeout.toSeconds() + " s\n" + lastLog());
      }
      sleep();
    }
  }

  /** SIGKILL, and waits until the process is gone. */
  public void kill9() {
    process.destroyForcibly();
    awaitExit(Duration.ofSeconds(10));
  }

  /**
   * SIGSTOP, and SIGCONT after that time, whatever has become of this process by then; does not
   * wait.
   */
  public void freeze(Duration time) {
    try {
      Process unused =
          new ProcessBuilder(
                  "sh",
                  "-c",
                  String.format(
                      Locale.ROOT,
                      "kill -STOP %1$d; sleep %2$.3f; kill -CONT %1$d",
                      process.pid(),
                      time.toMillis() / 1e3))
              .redirectErrorStream(true)
              .redirectOutput(ProcessBuilder.Redirect.DISCARD)
              .start();
    } catch (IOException e) {
      throw new UncheckedIOException("cannot stop " + name, e);
    }
  }

  /** SIGTERM; does not wait. */
  public void terminate() {
    // Process.destroy() would close the pipe too, and ParentWatch would end the child at once.
    boolean unused = process.toHandle().destroy();
  }

  /**
   * Waits for the end.
   *
   * @return the exit code: 128 + the number of the signal that ended it, if one did
   */
  public int awaitExit(Duration timeout) {
    try {
      if (!process.waitFor(timeout.toMillis(), TimeUnit.MILLISECONDS)) {
        throw new IllegalStateException(
            name + " did not end within " + timeout.toSeconds() + " s\n" + lastLog());
      }
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new IllegalStateException("interrupted while " + name + " was ending", e);
    }
    return process.exitValue();
  }

  public boolean isAlive() {
    return process.isAlive();
  }

  public long pid() {
    return process.pid();
  }

  /** Everything that the process has printed so far. */
  public String log() {
    try {
      return Files.exists(log) ? Files.readString(log) : "";
    } catch (IOException e) {
      throw new UncheckedIOException("cannot read " + log, e);
    }
  }

  /** SIGTERM, then SIGKILL if that does not end it within ten seconds. */
  @Override
  public void close() {
    terminate();
    try {
      if (!process.waitFor(10, TimeUnit.SECONDS)) {
        kill9();
      }
    } catch (InterruptedException e) {
      process.destroyForcibly();
      Thread.currentThread().interrupt();
    }
  }

  private String lastLog() {
    List<String> lines = log().lines().toList();
    return "the end of "
        + log
        + ":\n"
        + String.join("\n", lines.subList(Math.max(0, lines.size() - LAST_LINES), lines.size()));
  }

  private static void sleep() {
    try {
      Thread.sleep(50);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }
}
