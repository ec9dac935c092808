package dev.millrace.inference.backend.cpu;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.util.concurrent.atomic.AtomicIntegerArray;
import java.util.concurrent.locks.LockSupport;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class WorkersTest {
  @ParameterizedTest
  @ValueSource(ints = {1, 2, 5})
  void shouldRunEachPartOnceAndReturnWhenAllHaveEnded(int threads) {
    try (Workers workers = new Workers(threads)) {
      for (int round = 0; round < 3000; round++) {
        AtomicIntegerArray ran = new AtomicIntegerArray(threads);
        workers.run((worker, count) -> ran.addAndGet(worker, count));
        for (int i = 0; i < threads; i++) {
          assertThat(ran.get(i)).isEqualTo(threads);
        }
        if (round % 1000 == 999) {
          // Long enough for the others to go to sleep.
          LockSupport.parkNanos(2_000_000);
        }
      }
    }
  }

  @ParameterizedTest
  @ValueSource(ints = {1, 2, 3, 7})
  void shouldShareOutEveryItemOnceInWholeGrains(int workers) {
    for (int items : new int[] {0, 1, 9, 10, 11, 128_256}) {
      int end = 0;
      for (int w = 0; w < workers; w++) {
        assertThat(Workers.from(items, 10, w, workers)).isEqualTo(end);
        end = Workers.from(items, 10, w + 1, workers);
        assertThat(end % 10 == 0 || end == items).isTrue();
      }
      assertThat(end).isEqualTo(items);
    }
  }

  @ParameterizedTest
  @ValueSource(ints = {0, 1, 2})
  void shouldThrowWhatAPartThrewAndGoOn(int thrower) {
    try (Workers workers = new Workers(3)) {
      assertThatThrownBy(
              () ->
                  workers.run(
                      (worker, count) -> {
                        if (worker == thrower) {
                          throw new IllegalStateException("part " + worker);
                        }
                      }))
          .isInstanceOf(IllegalStateException.class)
          .hasMessage("part " + thrower);
      int[] ran = new int[3];
      workers.run((worker, count) -> ran[worker] = 1);
      assertThat(ran).containsOnly(1);
    }
  }
}
