package dev.millrace.topology.cli;

import com.sun.management.OperatingSystemMXBean;
import dev.millrace.topology.SyntheticGenerator;
import dev.millrace.topology.Worker;
import dev.millrace.topology.WorkerConfig;
import java.lang.management.ManagementFactory;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.time.Duration;
import java.util.Arrays;
import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.concurrent.TimeUnit;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Spec;

/** {@code millrace bench durability}. */
@Command(
    name = "durability",
    description = {
      "What saving generated tokens costs: the same load with saves and without, in turn. An"
          + " engine",
      "without a model gives each sequence its share of the tokens a second; broker and registry",
      "are processes of their own. Bytes to Kafka are what the worker's producers sent."
    })
@SuppressWarnings("NullAway.Init")
public final class DurabilityBenchCommand implements Callable<Integer> {
  private static final Duration START = Duration.ofSeconds(60);

  /** Long enough for the first answers to have ended, so that lengths are well mixed. */
  private static final double RAMP = 0.5;

  @Option(
      names = "--sequences",
      paramLabel = "N",
      defaultValue = "1000",
      description = "Sequences at once (default: ${DEFAULT-VALUE}).")
  private int sequences;

  @Option(
      names = "--tokens-per-second",
      paramLabel = "N",
      defaultValue = "20000",
      description = "Of all sequences together (default: ${DEFAULT-VALUE}).")
  private int tokensPerSecond;

  @Option(
      names = "--tokens",
      paramLabel = "N",
      defaultValue = "400",
      description =
          "Mean length of an answer; from half to one and a half of it (default:"
              + " ${DEFAULT-VALUE}).")
  private int tokens;

  @Option(
      names = "--seconds",
      paramLabel = "N",
      defaultValue = "30",
      description =
          "Length of each measurement, after half as long to begin (default:"
              + " ${DEFAULT-VALUE}).")
  private int seconds;

  @Option(
      names = "--rounds",
      paramLabel = "N",
      defaultValue = "3",
      description = "Measurements with saves and without, in turn (default: ${DEFAULT-VALUE}).")
  private int rounds;

  @Mixin private GroupOptions group;
  @Spec private CommandSpec spec;

  /** What was measured, each a second. */
  private record Rates(double tokens, double bytes, double cores) {
    static final Rates NONE = new Rates(0, 0, 0);

    Rates plus(Rates other, int of) {
      return new Rates(
          tokens + other.tokens / of, bytes + other.bytes / of, cores + other.cores / of);
    }
  }

  private record Reading(long nanos, double tokens, double bytes, long cpuNanos) {
    Rates since(Reading before) {
      double took = (nanos - before.nanos) / 1e9;
      return new Rates(
          (tokens - before.tokens) / took,
          (bytes - before.bytes) / took,
          (cpuNanos - before.cpuNanos) / 1e9 / took);
    }
  }

  @Override
  public Integer call() throws Exception {
    Logs.errorsOnly();
    Screen screen = new Screen(spec.commandLine().getOut());
    screen.line(
        "%d cores, %s, %,d sequences, %,d tokens/s, %d tokens an answer",
        Runtime.getRuntime().availableProcessors(), group, sequences, tokensPerSecond, tokens);
    Rates off = Rates.NONE;
    Rates on = Rates.NONE;
    try (BenchCluster cluster = BenchCluster.start()) {
      for (int round = 0; round < rounds; round++) {
        Rates without = measure(cluster, "off-" + round, false);
        row(screen, "saves off", without);
        Rates with = measure(cluster, "on-" + round, true);
        row(screen, "saves on", with);
        off = off.plus(without, rounds);
        on = on.plus(with, rounds);
      }
    }
    screen.line("mean of %d", rounds);
    row(screen, "saves off", off);
    row(screen, "saves on", on);
    screen.line(
        "cost of saving: %.2f %% of the tokens, %+.1f kB/s to Kafka, %+.3f cores",
        (1 - on.tokens / off.tokens) * 100, (on.bytes - off.bytes) / 1000, on.cores - off.cores);
    return 0;
  }

  private static void row(Screen screen, String name, Rates rates) {
    screen.line(
        "  %-10s %,9.0f tokens/s  %,8.1f kB/s to Kafka  %.3f cores",
        name, rates.tokens, rates.bytes / 1000, rates.cores);
  }

  /** What a worker is told so that it saves as it does by default, or saves nothing. */
  static Map<String, String> saving(boolean saves) {
    return saves
        ? Map.of()
        : Map.of(
            "progress.save.tokens",
            Integer.toString(Integer.MAX_VALUE),
            "progress.save.interval",
            "1d",
            // A bound on what is unsaved is kept by saving.
            "progress.ahead.tokens",
            "0");
  }

  private Rates measure(BenchCluster cluster, String name, boolean saves) throws Exception {
    Map<String, String> settings = new HashMap<>(group.settings());
    // Some more than run, so that the next one is there when one ends.
    settings.put("window.prompts", Integer.toString(sequences + Math.max(64, sequences / 4)));
    settings.put("status.port", "0");
    settings.putAll(saving(saves));
    WorkerConfig config = cluster.settings(name, settings);
    TopicsCommand.create(config);
    TopologyBench bench =
        new TopologyBench(config, i -> tokens / 2 + (int) (i * 2654435761L % (tokens + 1)));
    double time = seconds * (1 + RAMP) + 10;
    bench.preload(2 * sequences + (int) (time * tokensPerSecond / tokens));
    try (SyntheticGenerator generator =
            SyntheticGenerator.atRate("paced", (double) tokensPerSecond / sequences, sequences);
        Worker worker = new Worker(config, generator);
        HttpClient http = HttpClient.newHttpClient()) {
      worker.start();
      if (!worker.awaitRunning(START)) {
        throw new Failures.CommandFailedException("the worker does not run: " + worker.failure());
      }
      TimeUnit.MILLISECONDS.sleep((long) (seconds * RAMP * 1000));
      Reading begin = read(http, worker);
      TimeUnit.SECONDS.sleep(seconds);
      Rates rates = read(http, worker).since(begin);
      // What is under way is of no more interest.
      boolean unused = worker.close(Duration.ZERO);
      return rates;
    }
  }

  private static Reading read(HttpClient http, Worker worker) throws Exception {
    String metrics =
        http.send(
                HttpRequest.newBuilder(
                        URI.create("http://127.0.0.1:" + worker.statusPort() + "/metrics"))
                    .build(),
                HttpResponse.BodyHandlers.ofString())
            .body();
    long cpu =
        ((OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean()).getProcessCpuTime();
    return new Reading(
        System.nanoTime(),
        // What the worker took up, and not what the engine made while nobody did.
        sum(metrics, "millrace_tokens_generated_total"),
        sum(metrics, "kafka_producer_outgoing_byte_total"),
        cpu);
  }

  /**
   * The sum of a metric over its labels.
   *
   * @throws Failures.CommandFailedException if it is not there
   */
  static double sum(String metrics, String name) {
    double[] values =
        metrics
            .lines()
            .filter(line -> line.startsWith(name + "{") || line.startsWith(name + " "))
            .mapToDouble(line -> Double.parseDouble(line.substring(line.lastIndexOf(' '))))
            .toArray();
    if (values.length == 0) {
      throw new Failures.CommandFailedException("the worker shows no metric " + name);
    }
    return Arrays.stream(values).sum();
  }
}
