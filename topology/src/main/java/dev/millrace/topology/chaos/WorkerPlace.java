package dev.millrace.topology.chaos;

import dev.millrace.topology.Environment;
import dev.millrace.topology.local.ForkedJvm;
import dev.millrace.topology.local.TcpProxy;
import dev.millrace.topology.local.TemporaryFolder;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.io.Writer;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.time.Duration;
import java.time.OffsetDateTime;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Properties;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Stream;
import org.jspecify.annotations.Nullable;

/**
 * Where one worker process after the other runs: its folder, its settings, and its own way to the
 * broker. Whoever makes it closes it. For one thread.
 */
final class WorkerPlace implements AutoCloseable {
  private static final Duration EXIT = Duration.ofSeconds(60);
  private static final Pattern MOVE =
      Pattern.compile("^(\\S+) .* task \\d+_(\\d+) (takes|hands) over \\d+ prompts$");

  /**
   * One process that ran here, and what it generated.
   *
   * @param killedBy the fault that killed it; null if none did
   */
  record Life(Path tokens, @Nullable Fault killedBy) {}

  /**
   * A task that changed hands while it had prompts.
   *
   * @param partition of the prompts' topic
   * @param atMs milliseconds since 1970
   * @param taken the worker got it; or else gave it away
   */
  record Move(int partition, long atMs, boolean taken) {}

  final int number;
  final TcpProxy proxy;
  private final Path folder;
  private final double tokensPerSecond;
  private final List<Life> lives = new ArrayList<>();
  private @Nullable ForkedJvm process;

  WorkerPlace(int number, Path folder, TcpProxy proxy, double tokensPerSecond) {
    this.number = number;
    this.folder = folder;
    this.proxy = proxy;
    this.tokensPerSecond = tokensPerSecond;
  }

  /** Writes what the workers here are told; to be called before the first starts. */
  void configure(Map<String, String> settings) {
    Map<String, String> all = new HashMap<>(settings);
    all.put("kafka.bootstrap.servers", "127.0.0.1:" + proxy.port());
    all.put("kafka.state.dir", state().toString());
    Properties properties = new Properties();
    properties.putAll(all);
    try {
      Files.createDirectories(folder);
      try (Writer out = Files.newBufferedWriter(settingsFile())) {
        properties.store(out, null);
      }
    } catch (IOException e) {
      throw new UncheckedIOException("cannot write into " + folder, e);
    }
  }

  private Path settingsFile() {
    return folder.resolve("worker.properties");
  }

  private Path state() {
    return folder.resolve("state");
  }

  /** Starts the next process; does not wait until it reads prompts. */
  void start() {
    if (process != null) {
      throw new IllegalStateException("worker " + number + " runs already");
    }
    Path tokens = folder.resolve("tokens-" + lives.size());
    lives.add(new Life(tokens, null));
    process =
        ForkedJvm.start(
            new ForkedJvm.Spec(
                "worker " + number,
                List.of(
                    "-Xmx128m",
                    "-Xss512k",
                    "-XX:+UseSerialGC",
                    // Nothing here computes: the quick compiler starts sooner.
                    "-XX:TieredStopAtLevel=1",
                    "-XX:+ExitOnOutOfMemoryError",
                    "-Dmillrace.home=" + Environment.home()),
                null,
                ChaosWorker.class.getName(),
                List.of(
                    settingsFile().toString(), tokens.toString(), Double.toString(tokensPerSecond)),
                folder.resolve("worker.log"),
                folder));
  }

  /** Whether a process is there that has not been told to end. */
  boolean runs() {
    return process != null;
  }

  /** Whether a process should be there and is not. */
  boolean died() {
    return process != null && !process.isAlive();
  }

  /** Takes note that the process has ended by itself, and returns its exit code. */
  int bury() {
    int code = running().awaitExit(EXIT);
    process = null;
    return code;
  }

  /** SIGKILL. */
  void kill(Fault by) {
    running().kill9();
    process = null;
    lives.add(new Life(lives.removeLast().tokens(), by));
  }

  /** SIGTERM; {@link #awaitEnd} must follow. */
  void terminate() {
    running().terminate();
  }

  /** SIGTERM's second half: waits until the process is gone, and returns its exit code. */
  int awaitEnd() {
    int code = running().awaitExit(EXIT);
    process = null;
    return code;
  }

  void freeze(Duration time) {
    running().freeze(time);
  }

  /** Deletes the state folder. */
  void wipe() {
    new TemporaryFolder(state()).close();
  }

  private ForkedJvm running() {
    if (process == null) {
      throw new IllegalStateException("worker " + number + " does not run");
    }
    return process;
  }

  /** Where the workers here took over or handed over prompts with a task, as their log says. */
  List<Move> moves() {
    try (Stream<String> lines = Files.lines(folder.resolve("worker.log"))) {
      return lines.map(WorkerPlace::move).flatMap(Optional::stream).toList();
    } catch (NoSuchFileException e) {
      return List.of();
    } catch (IOException e) {
      throw new UncheckedIOException("cannot read the log in " + folder, e);
    }
  }

  /** The move that a line of a worker's log tells of, if it does. */
  static Optional<Move> move(String line) {
    Matcher move = MOVE.matcher(line);
    if (!move.find()) {
      return Optional.empty();
    }
    return Optional.of(
        new Move(
            Integer.parseInt(move.group(2)),
            OffsetDateTime.parse(move.group(1)).toInstant().toEpochMilli(),
            move.group(3).equals("takes")));
  }

  List<Life> lives() {
    return lives;
  }

  @Override
  public void close() {
    if (process != null) {
      process.kill9();
      process = null;
    }
    proxy.close();
  }
}
