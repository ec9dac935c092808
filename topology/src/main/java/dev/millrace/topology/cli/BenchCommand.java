package dev.millrace.topology.cli;

import dev.millrace.topology.Environment;
import dev.millrace.topology.SyntheticGenerator;
import dev.millrace.topology.Worker;
import dev.millrace.topology.WorkerConfig;
import dev.millrace.topology.local.LocalStack;
import java.time.Duration;
import java.util.Arrays;
import java.util.Map;
import java.util.concurrent.ExecutionException;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Spec;

/** {@code millrace bench}. */
@Command(
    name = "bench",
    description = "Measures parts of Millrace.",
    subcommands = {
      EngineBenchCommand.class,
      KernelBenchCommand.class,
      StreamBenchCommand.class,
      DurabilityBenchCommand.class,
      BacklogBenchCommand.class
    },
    synopsisSubcommandLabel = "COMMAND")
@SuppressWarnings("NullAway.Init")
public final class BenchCommand {
  private static final Duration START = Duration.ofSeconds(60);

  @Spec private CommandSpec spec;

  @Command(
      name = "topology",
      description = {
        "Runs a broker, a registry and a worker in this process, with an engine that answers at",
        "once: how many prompts a second go through, and how long one takes when there are few."
      })
  int topology(
      @Option(
              names = "--prompts",
              paramLabel = "N",
              defaultValue = "200000",
              description = "Prompts of the throughput run (default: ${DEFAULT-VALUE}).")
          int prompts,
      @Option(
              names = "--rate",
              paramLabel = "N",
              defaultValue = "50",
              description = "Prompts a second of the latency run (default: ${DEFAULT-VALUE}).")
          int rate,
      @Option(
              names = "--seconds",
              paramLabel = "N",
              defaultValue = "20",
              description = "Length of the latency run (default: ${DEFAULT-VALUE}).")
          int seconds,
      @Option(
              names = "--tokens",
              paramLabel = "N",
              defaultValue = "8",
              description = "Tokens of each answer (default: ${DEFAULT-VALUE}).")
          int tokens,
      @Option(
              names = "--guarantee",
              paramLabel = "NAME",
              defaultValue = "at_least_once",
              description = "at_least_once or exactly_once_v2 (default: ${DEFAULT-VALUE}).")
          String guarantee,
      @Option(
              names = "--protocol",
              paramLabel = "NAME",
              defaultValue = "classic",
              description = "classic or streams (default: ${DEFAULT-VALUE}).")
          String protocol)
      throws InterruptedException, ExecutionException {
    Logs.errorsOnly();
    Screen screen = new Screen(spec.commandLine().getOut());
    screen.line(
        "%d cores, heap %d MiB, %s, %s protocol, %d tokens an answer",
        Runtime.getRuntime().availableProcessors(),
        Runtime.getRuntime().maxMemory() >> 20,
        guarantee,
        protocol,
        tokens);
    try (LocalStack stack =
            Environment.bundled() ? LocalStack.startWithoutRegistry() : LocalStack.start();
        SyntheticGenerator generator = SyntheticGenerator.atOnce("instant")) {
      TopologyBench bench = new TopologyBench(settings(stack, guarantee, protocol), i -> tokens);
      TopicsCommand.create(bench.config());
      try (Worker worker = start(bench.config(), generator)) {
        bench.warmUp();
        row(screen, "broker alone, a record", bench.roundTrips(rate, seconds));
        row(screen, "prompt to completion", bench.latencies(rate, seconds));
        worker.close(Duration.ofSeconds(10));
      }
      bench.preload(prompts);
      try (Worker worker = start(bench.config(), generator)) {
        double perSecond = bench.drain(prompts);
        screen.line(
            "throughput              %.0f prompts/s, %d prompts, %s",
            perSecond, prompts, bench.answers().summary(bench.sent()));
      }
    }
    return 0;
  }

  private static Worker start(WorkerConfig config, SyntheticGenerator generator)
      throws InterruptedException {
    Worker worker = new Worker(config, generator);
    worker.start();
    if (!worker.awaitRunning(START)) {
      throw new Failures.CommandFailedException(
          "the worker does not run: " + worker.state() + ", " + worker.failure());
    }
    return worker;
  }

  private static void row(Screen screen, String name, double[] millis) {
    double[] sorted = millis.clone();
    Arrays.sort(sorted);
    screen.line(
        "%-23s p50 %.1f ms, p99 %.1f ms, max %.1f ms, %d records",
        name, at(sorted, 0.5), at(sorted, 0.99), sorted[sorted.length - 1], sorted.length);
  }

  private static double at(double[] sorted, double share) {
    return sorted[(int) Math.min(sorted.length - 1.0, Math.ceil(share * sorted.length) - 1)];
  }

  private static WorkerConfig settings(LocalStack stack, String guarantee, String protocol) {
    return BenchCluster.settings(
        "bench",
        stack.broker().bootstrap(),
        stack.registryUrl(),
        stack.folder().toString(),
        Map.of("kafka.processing.guarantee", guarantee, "kafka.group.protocol", protocol));
  }
}
