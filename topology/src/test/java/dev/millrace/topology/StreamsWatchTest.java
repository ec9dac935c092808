package dev.millrace.topology;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.HashMap;
import java.util.Map;
import org.apache.kafka.common.Metric;
import org.apache.kafka.common.MetricName;
import org.junit.jupiter.api.Test;

/** Which of the consumers' metrics say that a stream thread hangs. */
class StreamsWatchTest {
  private record Value(MetricName metricName, Object metricValue) implements Metric {}

  private static Map<MetricName, Metric> metrics(Map<String, Double> secondsByClient) {
    Map<MetricName, Metric> metrics = new HashMap<>();
    secondsByClient.forEach(
        (client, seconds) -> {
          MetricName name =
              new MetricName(
                  "last-poll-seconds-ago", "consumer-metrics", "", Map.of("client-id", client));
          metrics.put(name, new Value(name, seconds));
        });
    return metrics;
  }

  @Test
  void shouldLookAtTheThreadThatIsFurthestBehind() {
    assertThat(
            StreamsWatch.secondsSincePoll(
                metrics(
                    Map.of(
                        "a-1-StreamThread-1-consumer", 3.0, "a-1-StreamThread-2-consumer", 7.0))))
        .isEqualTo(7);
  }

  @Test
  void shouldNotWaitForConsumersThatRestoreStores() {
    assertThat(
            StreamsWatch.secondsSincePoll(
                metrics(
                    Map.of(
                        "a-1-StreamThread-1-consumer",
                        3.0,
                        "a-1-StreamThread-1-restore-consumer",
                        900.0))))
        .isEqualTo(3);
  }

  @Test
  void shouldWatchAGroupWhoseNameHasTheWordInIt() {
    assertThat(
            StreamsWatch.secondsSincePoll(
                metrics(Map.of("restore-consumer-1-StreamThread-1-consumer", 900.0))))
        .isEqualTo(900);
  }
}
