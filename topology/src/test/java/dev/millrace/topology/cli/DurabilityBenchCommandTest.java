package dev.millrace.topology.cli;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import org.junit.jupiter.api.Test;

/** How the benchmark reads a worker's metrics. */
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
}
