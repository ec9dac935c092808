package dev.millrace.kernels;

import static org.assertj.core.api.Assertions.assertThat;

import java.lang.foreign.Arena;
import org.junit.jupiter.api.Test;

class CublasLtTest {
  @SuppressWarnings("NullAway") // a stream needs a GPU, and nothing gets as far as that
  private static boolean multiply(CublasLt products, int outputs) {
    return products.multiplyFp8Rows(
        new Rows(256, 64),
        140,
        512,
        outputs,
        64,
        new Rows(1024, outputs),
        CublasLt.Output.BF16,
        1,
        2048,
        4096,
        null);
  }

  @Test
  void shouldScaleRowsOfNoShapeWhereTheLibraryHasNoSuchMode() {
    try (Arena arena = Arena.ofConfined()) {
      OldCublasLt library = new OldCublasLt(arena);
      try (CublasLt products = new CublasLt("old", library, 0)) {
        assertThat(multiply(products, 32)).isFalse();
        // It would be scaled by the first row's scale.
        assertThat(multiply(products, 48)).isFalse();
        assertThat(multiply(products, 32)).isFalse();
        assertThat(library.made).isPositive();
        assertThat(library.operations).isEmpty();
      }
      assertThat(library.products).isZero();
    }
  }
}
