package dev.millrace.inference.bench;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.stream.LongStream;
import org.junit.jupiter.api.Test;

class SamplesTest {
  private static Samples.Summary of(LongStream millis) {
    Samples samples = new Samples(0);
    millis.forEach(ms -> samples.add(ms * 1_000_000));
    return samples.summary();
  }

  @Test
  void shouldTakeTheNearestRank() {
    // Backwards, so that they must be sorted.
    assertThat(of(LongStream.rangeClosed(1, 100).map(i -> 101 - i)))
        .isEqualTo(new Samples.Summary(100, 50.5, 50, 99, 100));
  }

  @Test
  void shouldRoundTheRankUp() {
    // 0.5 · 5 = 2.5 is the third, 0.99 · 5 the fifth.
    assertThat(of(LongStream.of(10, 20, 30, 40, 60)))
        .isEqualTo(new Samples.Summary(5, 32, 30, 60, 60));
  }

  @Test
  void shouldTellASingleOne() {
    assertThat(of(LongStream.of(7))).isEqualTo(new Samples.Summary(1, 7, 7, 7, 7));
  }

  @Test
  void shouldBeZeroWithoutAny() {
    assertThat(of(LongStream.empty())).isEqualTo(new Samples.Summary(0, 0, 0, 0, 0));
  }

  @Test
  void shouldGoOnAfterASummary() {
    Samples samples = new Samples(0);
    samples.add(3_000_000);
    assertThat(samples.summary().max()).isEqualTo(3);
    samples.add(1_000_000);
    assertThat(samples.summary()).isEqualTo(new Samples.Summary(2, 2, 1, 3, 3));
  }
}
