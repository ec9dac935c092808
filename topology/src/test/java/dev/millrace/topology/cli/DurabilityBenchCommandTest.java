package dev.millrace.topology.cli;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.millrace.topology.WorkerConfig;
import java.time.Duration;
import java.util.Map;
import org.junit.jupiter.api.Test;

/** What the benchmark tells its workers, and how it reads their metrics. */
class DurabilityBenchCommandTest {
  private static final String METRICS =
      """
      # TYPE x_total counter
      x_total{a="b"} 1.5
      x_total{a="c"} 2.0E3
      x_total_more 7.0
      y_total 3.0
      """;

  @Test
  void shouldAddUpAMetricOverItsLabels() {
    assertThat(DurabilityBenchCommand.sum(METRICS, "x_total")).isEqualTo(2001.5);
    assertThat(DurabilityBenchCommand.sum(METRICS, "y_total")).isEqualTo(3);
  }

  @Test
  void shouldNotTakeAMissingMetricForZero() {
    assertThatThrownBy(() -> DurabilityBenchCommand.sum(METRICS, "z_total"))
        .hasMessageContaining("no metric z_total");
  }

  @Test
  void shouldSaveNothingWhereSavesAreOff() {
    WorkerConfig.Save off = save(DurabilityBenchCommand.saving(false));
    assertThat(off.tokens()).isEqualTo(Integer.MAX_VALUE);
    assertThat(off.interval()).isEqualTo(Duration.ofDays(1));
    // Else it saves where a prompt has come half as far as it may without.
    assertThat(off.ahead()).isZero();
  }

  @Test
  void shouldSaveAsAWorkerDoesWhereSavesAreOn() {
    assertThat(save(DurabilityBenchCommand.saving(true))).isEqualTo(save(Map.of()));
  }

  private static WorkerConfig.Save save(Map<String, String> settings) {
    return BenchCluster.settings("name", "localhost:9092", "http://localhost", "/tmp", settings)
        .save();
  }
}
