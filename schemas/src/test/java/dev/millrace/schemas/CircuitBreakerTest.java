package dev.millrace.schemas;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.util.concurrent.atomic.AtomicLong;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

class CircuitBreakerTest {
  private final AtomicLong clock = new AtomicLong();
  private final CircuitBreaker breaker = new CircuitBreaker(clock::get);

  @BeforeEach
  void endAPause() {
    assertThatThrownBy(() -> breaker.ask(CircuitBreakerTest::down)).hasMessage("down");
    clock.addAndGet(CircuitBreaker.PAUSE_MS * 1_000_000);
  }

  private static String down() {
    throw new RegistryUnavailableException("down", null);
  }

  @Test
  void shouldLetOnlyOneTryAtATime() {
    String answer =
        breaker.ask(
            () -> {
              assertThatThrownBy(() -> breaker.ask(() -> "second"))
                  .isInstanceOf(RegistryUnavailableException.class)
                  .hasMessageContainingAll("not asked again", "down");
              return "first";
            });
    assertThat(answer).isEqualTo("first");
    assertThat(breaker.ask(() -> breaker.ask(() -> "both"))).isEqualTo("both");
  }

  @Test
  void shouldLetAnotherTryAfterADefect() {
    assertThatThrownBy(
            () ->
                breaker.ask(
                    () -> {
                      throw new IllegalStateException("defect");
                    }))
        .hasMessage("defect");
    assertThat(breaker.ask(() -> "next")).isEqualTo("next");
  }
}
