package dev.millrace.topology.supervisor;

import static org.assertj.core.api.Assertions.assertThat;

import java.time.Duration;
import java.util.OptionalLong;
import org.junit.jupiter.api.Test;

class BackoffTest {
  private static final Backoff.Limits LIMITS =
      new Backoff.Limits(Duration.ofSeconds(1), Duration.ofSeconds(8), Duration.ofMinutes(1), 4);
  private static final Duration NEVER = Duration.ZERO;
  private static final Duration SHORT = Duration.ofSeconds(1);

  @Test
  void shouldDoubleItsPausesUpToTheLongest() {
    for (long seed = 0; seed < 200; seed++) {
      Backoff backoff = new Backoff(LIMITS, seed);
      for (long most : new long[] {1000, 2000, 4000, 8000, 8000, 8000}) {
        assertThat(backoff.ended(SHORT).orElseThrow())
            .as("seed %d", seed)
            .isBetween(most / 2, most);
      }
    }
  }

  @Test
  void shouldSpreadWorkersThatFallTogether() {
    long[] pauses = new long[100];
    for (int seed = 0; seed < pauses.length; seed++) {
      pauses[seed] = new Backoff(LIMITS, seed).ended(SHORT).orElseThrow();
    }
    assertThat(java.util.Arrays.stream(pauses).distinct().count()).isGreaterThan(50);
    assertThat(new Backoff(LIMITS, 3).ended(SHORT)).isEqualTo(OptionalLong.of(pauses[3]));
  }

  @Test
  void shouldForgetEarlierEndsOfAWorkerThatWasHealthy() {
    Backoff backoff = new Backoff(LIMITS, 1);
    for (int i = 0; i < 5; i++) {
      assertThat(backoff.ended(SHORT)).isPresent();
    }
    assertThat(backoff.ended(Duration.ofMinutes(2)).orElseThrow()).isLessThanOrEqualTo(1000);
  }

  @Test
  void shouldGiveUpOnlyAWorkerThatWasNeverReady() {
    Backoff never = new Backoff(LIMITS, 1);
    for (int i = 0; i < 3; i++) {
      assertThat(never.ended(NEVER)).isPresent();
    }
    assertThat(never.ended(NEVER)).isEmpty();
    Backoff once = new Backoff(LIMITS, 1);
    assertThat(once.ended(SHORT)).isPresent();
    for (int i = 0; i < 20; i++) {
      assertThat(once.ended(NEVER)).isPresent();
    }
  }
}
