package dev.millrace.topology.cli;

import dev.millrace.topology.SyntheticGenerator;
import dev.millrace.topology.Worker;
import dev.millrace.topology.WorkerConfig;
import java.io.IOException;
import java.lang.management.ManagementFactory;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.concurrent.Callable;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Spec;

/** {@code millrace bench backlog}. */
@Command(
    name = "backlog",
    description = {
      "Works off prompts that wait on the topic, with an engine that answers at once, and looks at",
      "memory, window and rate while it does. Broker and registry are processes of their own.",
      "Ids of answered prompts are remembered up to dedup.max.ids a partition: --dedup-ids sets it."
    })
@SuppressWarnings("NullAway.Init")
public final class BacklogBenchCommand implements Callable<Integer> {
  private static final Duration START = Duration.ofSeconds(60);

  @Option(
      names = "--prompts",
      paramLabel = "N",
      defaultValue = "1000000",
      description = "Prompts that wait (default: ${DEFAULT-VALUE}).")
  private int prompts;

  @Option(
      names = "--tokens",
      paramLabel = "N",
      defaultValue = "8",
      description = "Tokens of each answer (default: ${DEFAULT-VALUE}).")
  private int tokens;

  @Option(
      names = "--every",
      paramLabel = "SECONDS",
      defaultValue = "2",
      description = "Time between two looks (default: ${DEFAULT-VALUE}).")
  private int every;

  @Option(
      names = "--dedup-ids",
      paramLabel = "N",
      defaultValue = "20000",
      description = "Ids remembered for each of four partitions (default: ${DEFAULT-VALUE}).")
  private int dedupIds;

  @Option(names = "--csv", paramLabel = "FILE", description = "Writes the looks as a table.")
  private @Nullable Path csv;

  @Option(names = "--svg", paramLabel = "FILE", description = "Draws them.")
  private @Nullable Path svg;

  @Mixin private GroupOptions group;
  @Spec private CommandSpec spec;

  /** One look. */
  private record Look(
      double seconds, long answered, double rate, double heapMib, double rssMib, int window) {
    static final String COLUMNS = "seconds,answered,prompts_per_second,heap_mib,rss_mib,window";

    String csv() {
      return String.format(
          Locale.ROOT,
          "%.1f,%d,%.0f,%.1f,%.1f,%d",
          seconds,
          answered,
          rate,
          heapMib,
          rssMib,
          window);
    }
  }

  @Override
  public Integer call() throws Exception {
    Logs.errorsOnly();
    Screen screen = new Screen(spec.commandLine().getOut());
    screen.line(
        "%d cores, heap at most %d MiB, %s, %,d prompts, %d tokens an answer",
        Runtime.getRuntime().availableProcessors(),
        Runtime.getRuntime().maxMemory() >> 20,
        group,
        prompts,
        tokens);
    List<Look> looks = new ArrayList<>();
    Answers answers;
    try (BenchCluster cluster = BenchCluster.start();
        SyntheticGenerator generator = SyntheticGenerator.atOnce("instant")) {
      Map<String, String> settings = new HashMap<>(group.settings());
      settings.put("dedup.max.ids", Integer.toString(dedupIds));
      WorkerConfig config = cluster.settings("backlog", settings);
      TopicsCommand.create(config);
      TopologyBench bench = new TopologyBench(config, i -> tokens);
      bench.preload(prompts);
      screen.line("%,d prompts are on the topic", prompts);
      screen.line(
          "%8s %10s %10s %9s %9s %7s",
          "s", "answered", "prompts/s", "heap MiB", "RSS MiB", "window");
      try (Worker worker = new Worker(config, generator)) {
        worker.start();
        if (!worker.awaitRunning(START)) {
          throw new Failures.CommandFailedException("the worker does not run: " + worker.failure());
        }
        long start = System.nanoTime();
        bench.follow(
            prompts, Duration.ofSeconds(every), there -> look(screen, looks, start, there, worker));
        answers = bench.answers();
      }
    }
    summary(screen, looks, answers);
    write(looks);
    return answers.once(prompts) ? 0 : Failures.FAILED;
  }

  private void look(Screen screen, List<Look> looks, long start, long answered, Worker worker) {
    double seconds = (System.nanoTime() - start) / 1e9;
    int window = worker.running();
    Look before = looks.isEmpty() ? new Look(0, 0, 0, 0, 0, 0) : looks.getLast();
    // What is in use after a collection is what is held; the time that it takes counts in.
    System.gc();
    Look now =
        new Look(
            seconds,
            answered,
            (answered - before.answered) / (seconds - before.seconds),
            ManagementFactory.getMemoryMXBean().getHeapMemoryUsage().getUsed() / 1048576.0,
            residentMib(),
            window);
    looks.add(now);
    screen.line(
        "%8.1f %,10d %,10.0f %9.1f %9.1f %7d",
        now.seconds, now.answered, now.rate, now.heapMib, now.rssMib, now.window);
  }

  /** Of this process, where the system tells it; else NaN. */
  private static double residentMib() {
    Path status = Path.of("/proc/self/status");
    try {
      for (String line : Files.readAllLines(status)) {
        if (line.startsWith("VmRSS:")) {
          return Long.parseLong(line.replaceAll("\\D", "")) / 1024.0;
        }
      }
    } catch (IOException e) {
      // Another system than Linux.
    }
    return Double.NaN;
  }

  private void summary(Screen screen, List<Look> looks, Answers answers) {
    screen.line("%s", answers.summary(prompts));
    // The first looks see the compiler at work, the last one a part of its time.
    List<Look> steady =
        looks.size() < 8 ? looks : looks.subList(looks.size() / 4, looks.size() - 1);
    screen.line(
        "steady part: %,.0f to %,.0f prompts/s, heap %.1f to %.1f MiB, RSS %.0f to %.0f MiB",
        steady.stream().mapToDouble(Look::rate).min().orElse(Double.NaN),
        steady.stream().mapToDouble(Look::rate).max().orElse(Double.NaN),
        steady.stream().mapToDouble(Look::heapMib).min().orElse(Double.NaN),
        steady.stream().mapToDouble(Look::heapMib).max().orElse(Double.NaN),
        steady.stream().mapToDouble(Look::rssMib).min().orElse(Double.NaN),
        steady.stream().mapToDouble(Look::rssMib).max().orElse(Double.NaN));
  }

  private void write(List<Look> looks) throws IOException {
    Path table = csv;
    if (table != null) {
      List<String> lines = new ArrayList<>(List.of(Look.COLUMNS));
      looks.forEach(look -> lines.add(look.csv()));
      Files.write(table, lines);
    }
    Path drawing = svg;
    if (drawing != null) {
      double[] x = looks.stream().mapToDouble(Look::seconds).toArray();
      Files.writeString(
          drawing,
          new Plot("seconds", x)
              .line("prompts/s", looks.stream().mapToDouble(Look::rate).toArray())
              .line(
                  "heap after collection, MiB", looks.stream().mapToDouble(Look::heapMib).toArray())
              .line("resident memory, MiB", looks.stream().mapToDouble(Look::rssMib).toArray())
              .line("prompts in the window", looks.stream().mapToDouble(Look::window).toArray())
              .svg());
    }
  }
}
