package dev.millrace.kernels;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.millrace.kernels.CublasLtLibrary.Layouts;
import dev.millrace.kernels.CublasLtLibrary.Wanted;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.List;
import java.util.function.Supplier;
import java.util.function.ToIntFunction;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Test;

/** Which algorithm is taken where results are to be invariant, of a library that is made up. */
class ProductAlgorithmsTest {
  private static final int NOT_SUPPORTED = 15;

  /** Each algorithm: most rows that it does, and the bits that it leaves. */
  private final List<int[]> known = new ArrayList<>();

  private final Arena arena = Arena.ofAuto();
  private final Made library = new Made();
  private final ProductAlgorithms algorithms = new ProductAlgorithms(library, true);
  private final ProductAlgorithms.Plan plan =
      new ProductAlgorithms.Plan(
          new ProductShape(ProductShape.Kind.BF16, 8, 4, 8, 4, CublasLt.Output.BF16, 16),
          1,
          new Layouts(2, 3, 4));

  /** What the product that ran last left. */
  private int bits;

  /** Knows an algorithm by its number, which it keeps in its first byte. */
  private final class Made implements ProductAlgorithms.Library {
    private long rows;

    @Override
    public String name() {
      return "made up";
    }

    @Override
    public void setColumns(long layout, long columns) {
      rows = columns;
    }

    @Override
    public List<MemorySegment> algorithms(
        long operation, Layouts layouts, Wanted wanted, Supplier<String> what) {
      List<MemorySegment> found = new ArrayList<>();
      for (int i = 0; i < known.size() && found.size() < wanted.most(); i++) {
        if (known.get(i)[0] >= rows) {
          found.add(algorithm(i));
        }
      }
      return found;
    }

    @Override
    public boolean does(long operation, Layouts layouts, MemorySegment algorithm, long workspace) {
      return known.get(number(algorithm))[0] >= rows;
    }
  }

  /** Takes the last way that works for the fastest, and fetches what the last product left. */
  private final class LastIsFastest implements ProductChoice {
    @Override
    public void coolDown() {}

    @Override
    public void fetch(long address, MemorySegment to) {
      to.fill((byte) bits);
    }

    @Override
    public @Nullable String kept(String product) {
      return null;
    }

    @Override
    public void keep(String product, String way) {}

    @Override
    public <T> @Nullable T fastest(List<T> ways, ToIntFunction<T> run, Stream stream) {
      T last = null;
      for (T way : ways) {
        last = run.applyAsInt(way) == 0 ? way : last;
      }
      return last;
    }
  }

  private MemorySegment algorithm(int number) {
    MemorySegment algorithm = arena.allocate(CublasLtLibrary.ALGORITHM_BYTES, 8);
    algorithm.set(ValueLayout.JAVA_BYTE, 0, (byte) number);
    return algorithm;
  }

  private static int number(MemorySegment algorithm) {
    return algorithm.get(ValueLayout.JAVA_BYTE, 0);
  }

  private int timed(int rows) {
    return taken(rows, new LastIsFastest());
  }

  private int untimed(int rows) {
    return taken(rows, null);
  }

  @SuppressWarnings("NullAway") // there is no GPU, so no stream: nobody here looks at it
  private int taken(int rows, @Nullable ProductChoice choice) {
    ProductAlgorithms.Product product =
        algorithm -> {
          int[] way = known.get(number(algorithm));
          bits = way[1];
          return rows <= way[0] ? 0 : NOT_SUPPORTED;
        };
    return number(algorithms.of(plan, rows, new Rows(0, 4), product, choice, null));
  }

  @Test
  void shouldTakeTheReferenceWhereNothingWasTimed() {
    known.add(new int[] {1000, 7});
    known.add(new int[] {2000, 7});
    assertThat(untimed(10)).isZero();
    assertThat(untimed(1000)).isZero();
  }

  @Test
  void shouldTakeTheFastestThatLeavesTheBitsOfTheReference() {
    known.add(new int[] {1000, 7});
    known.add(new int[] {1000, 7});
    known.add(new int[] {1000, 8});
    assertThat(timed(100)).isEqualTo(1);
    assertThat(untimed(90)).isEqualTo(1);
  }

  @Test
  void shouldTakeAnotherThatWasProvedWhereTheReferenceIsRefused() {
    known.add(new int[] {100, 7});
    known.add(new int[] {2000, 8});
    known.add(new int[] {2000, 7});
    assertThat(timed(100)).isEqualTo(2);
    assertThat(untimed(500)).isEqualTo(2);
    assertThat(timed(600)).isEqualTo(2);
  }

  @Test
  void shouldRefuseWhatNoProvedAlgorithmTakes() {
    known.add(new int[] {100, 7});
    known.add(new int[] {2000, 8});
    String message =
        "made up takes no algorithm for 500 rows of %s that is known to leave invariant results"
            .formatted(plan.shape);
    assertThat(timed(100)).isZero();
    assertThatThrownBy(() -> untimed(500)).isInstanceOf(CudaException.class).hasMessage(message);
    assertThatThrownBy(() -> timed(500)).isInstanceOf(CudaException.class).hasMessage(message);
  }
}
