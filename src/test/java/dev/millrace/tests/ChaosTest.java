package dev.millrace.tests;

import static org.assertj.core.api.Assertions.assertThat;

import dev.millrace.topology.chaos.ChaosOptions;
import dev.millrace.topology.chaos.ChaosReport;
import dev.millrace.topology.chaos.ChaosRun;
import dev.millrace.topology.chaos.Fault;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** {@code millrace chaos} for less than a minute: each fault of a few kinds once or twice. */
final class ChaosTest {
  private static final long SEED = 5;

  /** Its plan has all three faults. */
  private static final long EXACTLY_ONCE_SEED = 30;

  private static final Duration LENGTH = Duration.ofSeconds(40);

  @TempDir Path temp;

  @Test
  void shouldEndEveryPromptOnceWhateverBreaks() throws Exception {
    check(
        new ChaosOptions(
            SEED,
            LENGTH,
            "at_least_once",
            "classic",
            2,
            12,
            100,
            300,
            List.of(Fault.KILL, Fault.BROKER, Fault.OUTPUT, Fault.REGISTRY_500, Fault.DUPLICATES),
            Duration.ofSeconds(2),
            Map.of("group.min.session.timeout.ms", "1000"),
            Map.of("kafka.session.timeout.ms", "2000", "kafka.heartbeat.interval.ms", "400")));
  }

  @Test
  void shouldEndEveryPromptExactlyOnceWhereThatIsAskedFor() throws Exception {
    check(
        new ChaosOptions(
            EXACTLY_ONCE_SEED,
            LENGTH,
            "exactly_once_v2",
            "streams",
            2,
            12,
            100,
            300,
            List.of(Fault.KILL, Fault.FREEZE, Fault.CUT),
            Duration.ofSeconds(2),
            Map.of(),
            Map.of()));
  }

  private void check(ChaosOptions options) throws InterruptedException {
    ChaosReport report = new ChaosRun(options, temp, System.out::println).run();
    report.lines().forEach(System.out::println);
    assertThat(report.failures()).as("seed %d", options.seed()).isEmpty();
    assertThat(report.killsWithPromptsInFlight()).as("seed %d", options.seed()).isPositive();
  }
}
