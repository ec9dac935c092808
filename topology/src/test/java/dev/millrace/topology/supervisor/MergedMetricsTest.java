package dev.millrace.topology.supervisor;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.Map;
import org.junit.jupiter.api.Test;

class MergedMetricsTest {
  @Test
  void shouldKeepTheSamplesOfAMetricTogether() {
    MergedMetrics merged = new MergedMetrics();
    merged.add("up", "gauge", "Whether.", Map.of("0", 1));
    merged.add(
        "0",
        """
        # HELP a_total An a.
        # TYPE a_total counter
        a_total{x="{ }",y="1"} 2.0
        # HELP t_seconds Times.
        # TYPE t_seconds histogram
        t_seconds_bucket{le="0.1"} 1
        t_seconds_bucket{le="+Inf"} 3
        t_seconds_sum 0.5
        # TYPE bare gauge
        bare{} 7
        """);
    merged.add(
        "1",
        """
        # HELP a_total An a.
        # TYPE a_total counter
        a_total{x="{ }",y="1"} 5.0
        # HELP b Only here.
        # TYPE b gauge
        b NaN
        """);
    assertThat(merged.text())
        .isEqualTo(
            """
            # HELP up Whether.
            # TYPE up gauge
            up{worker="0"} 1
            # HELP a_total An a.
            # TYPE a_total counter
            a_total{worker="0",x="{ }",y="1"} 2.0
            a_total{worker="1",x="{ }",y="1"} 5.0
            # HELP t_seconds Times.
            # TYPE t_seconds histogram
            t_seconds_bucket{worker="0",le="0.1"} 1
            t_seconds_bucket{worker="0",le="+Inf"} 3
            t_seconds_sum{worker="0"} 0.5
            # TYPE bare gauge
            bare{worker="0"} 7
            # HELP b Only here.
            # TYPE b gauge
            b{worker="1"} NaN
            """);
  }
}
