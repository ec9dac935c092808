package dev.millrace.schemas;

import java.util.concurrent.TimeUnit;
import java.util.function.LongSupplier;
import java.util.function.Supplier;
import org.jspecify.annotations.Nullable;

/**
 * Keeps callers from waiting for a registry that has just failed: an outage costs a caller seconds,
 * and a stream thread may ask for many records in a row. After an outage every call fails at once
 * for {@link #PAUSE_MS}; then one caller tries, and the others fail until it has its answer. Safe
 * for several threads.
 */
final class CircuitBreaker {
  /** How long after an outage nobody asks. */
  static final long PAUSE_MS = 500;

  private static final long PAUSE_NANOS = TimeUnit.MILLISECONDS.toNanos(PAUSE_MS);

  private final LongSupplier nanoTime;
  // Null: none that the registry has not come back from.
  private @Nullable RegistryUnavailableException outage;
  private long outageAt;
  private boolean trying;

  /**
   * @param nanoTime a clock that never goes back, in nanoseconds
   */
  CircuitBreaker(LongSupplier nanoTime) {
    this.nanoTime = nanoTime;
  }

  /**
   * What the registry answers to a question.
   *
   * @throws RegistryUnavailableException by the question, or without asking it
   */
  <T> T ask(Supplier<T> question) {
    boolean tries = enter();
    try {
      T answer = question.get();
      answered();
      return answer;
    } catch (BadRecordException e) {
      answered();
      throw e;
    } catch (RegistryUnavailableException e) {
      if (e.answered()) {
        answered();
      } else {
        failed(e);
      }
      throw e;
    } finally {
      if (tries) {
        tried();
      }
    }
  }

  /** Whether the caller is the one that tries. */
  private synchronized boolean enter() {
    if (outage == null) {
      return false;
    }
    if (trying || nanoTime.getAsLong() - outageAt < PAUSE_NANOS) {
      throw new RegistryUnavailableException(
          "not asked again within %d ms of an outage: %s".formatted(PAUSE_MS, outage.getMessage()),
          outage);
    }
    trying = true;
    return true;
  }

  private synchronized void answered() {
    outage = null;
  }

  private synchronized void failed(RegistryUnavailableException e) {
    outage = e;
    outageAt = nanoTime.getAsLong();
  }

  private synchronized void tried() {
    trying = false;
  }
}
