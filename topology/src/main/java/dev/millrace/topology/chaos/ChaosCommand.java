package dev.millrace.topology.chaos;

import dev.millrace.topology.chaos.FaultPlan.Step;
import dev.millrace.topology.cli.GroupOptions;
import dev.millrace.topology.cli.Logs;
import dev.millrace.topology.local.TemporaryFolder;
import java.io.PrintWriter;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;
import java.util.function.Function;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.ParameterException;
import picocli.CommandLine.Spec;

/** {@code millrace chaos}. */
@Command(
    name = "chaos",
    description = {
      "Runs a broker, a registry and workers on this machine, sends prompts, breaks one thing"
          + " after",
      "the other, and counts: each prompt must have exactly one outcome, with the bytes of a run",
      "without faults. Exits with 1 if anything is not so. The same seed gives the same prompts"
          + " and",
      "the same faults."
    })
@SuppressWarnings("NullAway.Init")
public final class ChaosCommand implements Callable<Integer> {
  @Option(
      names = "--seed",
      paramLabel = "N",
      description = "What prompts and faults are drawn from (default: a new one).")
  private @Nullable Long seed;

  @Option(
      names = "--minutes",
      paramLabel = "N",
      defaultValue = "2",
      description = "How long faults go on (default: ${DEFAULT-VALUE}).")
  private double minutes;

  @Mixin private GroupOptions group;

  @Option(
      names = "--workers",
      paramLabel = "N",
      defaultValue = "3",
      description = "Worker processes (default: ${DEFAULT-VALUE}).")
  private int workers;

  @Option(
      names = "--rate",
      paramLabel = "N",
      defaultValue = "10",
      description = "Prompts a second (default: ${DEFAULT-VALUE}).")
  private double rate;

  @Option(
      names = "--faults",
      paramLabel = "NAME",
      split = ",",
      description = "Only these: ${COMPLETION-CANDIDATES} (default: all).")
  private @Nullable List<Fault> faults;

  @Option(
      names = "--keep",
      description =
          "Keep the processes' files, logs among them; they are kept after a failure too.")
  private boolean keep;

  @Spec private CommandSpec spec;

  private static final double TOKENS_PER_SECOND = 60;
  private static final int LONGEST = 500;

  @Override
  public Integer call() throws InterruptedException {
    ChaosOptions options = options();
    return run(options, FaultPlan.of(options), report -> List.of());
  }

  @Command(
      name = "failover",
      description = {
        "Two workers, of which one is killed again and again: how long output stays away. Fails if",
        "it is more than 12 s, or 6 s with the broker's settings of deploy/broker.properties, or if"
            + " a",
        "kill hit nothing in flight."
      })
  int failover(
      @Option(names = "--seed", paramLabel = "N", defaultValue = "1") long runSeed,
      @Option(names = "--kills", paramLabel = "N", defaultValue = "4") int kills,
      @Mixin GroupOptions runGroup,
      @Option(names = "--stock", description = "A broker as it comes.") boolean stock)
      throws InterruptedException {
    check(runGroup);
    ChaosOptions options =
        Scenarios.failover(
            runSeed,
            kills,
            runGroup.guarantee(),
            runGroup.protocol(),
            stock ? Scenarios.stock() : Scenarios.quick(runGroup.protocol()));
    long limitMs = stock ? 12_000 : 6_000;
    List<Step> plan = FaultPlan.of(options);
    return run(options, plan, report -> Scenarios.failoverFailures(report, plan, limitMs));
  }

  @Command(
      name = "rolling",
      description = {
        "Three workers under load, told to end and started again one after the other: how much",
        "longer prompts wait. Fails if one waits more than 5 s longer than without."
      })
  int rolling(
      @Option(names = "--seed", paramLabel = "N", defaultValue = "1") long runSeed,
      @Mixin GroupOptions runGroup,
      @Option(names = "--stock", description = "A broker as it comes.") boolean stock)
      throws InterruptedException {
    check(runGroup);
    ChaosOptions options =
        Scenarios.rolling(
            runSeed,
            runGroup.guarantee(),
            runGroup.protocol(),
            stock ? Scenarios.stock() : Scenarios.quick(runGroup.protocol()));
    List<Step> plan = FaultPlan.rolling(options, Fault.TERMINATE, Duration.ZERO);
    return run(options, plan, report -> Scenarios.rollingFailures(report, plan, 5_000));
  }

  private int run(ChaosOptions options, List<Step> plan, Function<ChaosReport, List<String>> goals)
      throws InterruptedException {
    PrintWriter out = spec.commandLine().getOut();
    TemporaryFolder folder = TemporaryFolder.create("millrace-chaos-");
    Logs.toFile(folder.path().resolve("chaos.log"));
    Thread cleanUp = new Thread(() -> cleanUp(folder), "chaos-clean-up");
    Runtime.getRuntime().addShutdownHook(cleanUp);
    boolean good = false;
    try {
      ChaosReport report =
          new ChaosRun(
                  options,
                  plan,
                  folder.path(),
                  line -> {
                    out.println(line);
                    out.flush();
                  })
              .run();
      report.lines().forEach(out::println);
      List<String> failures = new ArrayList<>(report.failures());
      failures.addAll(goals.apply(report));
      failures.forEach(failure -> out.println("FAILED: " + failure));
      good = failures.isEmpty();
      if (good) {
        out.println("all is as it must be");
      }
    } finally {
      Runtime.getRuntime().removeShutdownHook(cleanUp);
      if (good && !keep) {
        folder.close();
      } else {
        out.println("the processes' files are in " + folder.path());
      }
      out.flush();
    }
    return good ? 0 : 1;
  }

  /** Ctrl-C: nothing is left behind. */
  private static void cleanUp(TemporaryFolder folder) {
    ProcessHandle.current()
        .descendants()
        .forEach(
            child -> {
              boolean unused = child.destroyForcibly();
              child.onExit().orTimeout(5, TimeUnit.SECONDS).handle((c, e) -> c).join();
            });
    folder.close();
  }

  private void check(GroupOptions asked) {
    String guarantee = asked.guarantee();
    String protocol = asked.protocol();
    if (!guarantee.equals("at_least_once") && !guarantee.equals("exactly_once_v2")) {
      throw bad("--guarantee is at_least_once or exactly_once_v2, not '" + guarantee + "'");
    }
    if (!protocol.equals("classic") && !protocol.equals("streams")) {
      throw bad("--protocol is classic or streams, not '" + protocol + "'");
    }
  }

  private ChaosOptions options() {
    check(group);
    if (!(minutes >= 0.2 && minutes <= 1440)) {
      throw bad("--minutes is a number from 0.2 to 1440");
    }
    if (workers < 1 || workers > 16) {
      throw bad("--workers is a number from 1 to 16");
    }
    if (!(rate >= 0.1 && rate <= 1000)) {
      throw bad("--rate is a number from 0.1 to 1000");
    }
    return new ChaosOptions(
        seed == null ? ThreadLocalRandom.current().nextInt(1_000_000) : seed,
        Duration.ofMillis((long) (minutes * 60_000)),
        group.guarantee(),
        group.protocol(),
        workers,
        rate,
        TOKENS_PER_SECOND,
        LONGEST,
        faults == null || faults.isEmpty() ? List.of(Fault.values()) : faults,
        Duration.ofSeconds(6),
        Map.of(),
        Map.of());
  }

  private ParameterException bad(String message) {
    return new ParameterException(spec.commandLine(), message);
  }
}
