package dev.millrace.kernels;

import dev.millrace.kernels.CublasLtLibrary.Layouts;
import dev.millrace.kernels.CublasLtLibrary.Wanted;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.jspecify.annotations.Nullable;

/**
 * Which of the library's algorithms multiplies a shape at a number of rows: the fastest of those
 * that the library thinks best, once timed, else its first guess.
 */
final class ProductAlgorithms {
  /** Algorithms that are timed of those that the library thinks best. */
  private static final int CANDIDATES = 8;

  /** Begins what is kept of an algorithm; other ways to compute a product begin otherwise. */
  private static final String KEPT = "cublaslt ";

  private final CublasLtLibrary library;
  private final Arena arena = Arena.ofAuto();

  /** A shape's descriptions for the library, and its algorithms by rows; some of them timed. */
  static final class Plan {
    final ProductShape shape;
    final long operation;
    final Layouts layouts;
    private final Map<Integer, MemorySegment> algorithms = new HashMap<>();
    private final TreeMap<Integer, MemorySegment> timed = new TreeMap<>();

    Plan(ProductShape shape, long operation, Layouts layouts) {
      this.shape = shape;
      this.operation = operation;
      this.layouts = layouts;
    }
  }

  /** A product on its way to the library: its status, with an algorithm. */
  interface Product {
    int run(MemorySegment algorithm);
  }

  ProductAlgorithms(CublasLtLibrary library) {
    this.library = library;
  }

  /**
   * The algorithm to take.
   *
   * @param choice times those that are not known yet; null: nothing is timed now
   */
  MemorySegment of(
      Plan plan, int rows, Product product, @Nullable ProductChoice choice, Stream stream) {
    MemorySegment known = plan.algorithms.get(rows);
    if (known == null) {
      setRows(plan, rows);
      known = choice == null ? untimed(plan, rows) : timed(plan, rows, product, choice, stream);
      plan.algorithms.put(rows, known);
    }
    setRows(plan, rows);
    return known;
  }

  private void setRows(Plan plan, int rows) {
    library.setColumns(plan.layouts.x(), rows);
    library.setColumns(plan.layouts.out(), rows);
  }

  private MemorySegment timed(
      Plan plan, int rows, Product product, ProductChoice choice, Stream stream) {
    String key = plan.shape.key(rows);
    MemorySegment algorithm = kept(plan, choice.kept(key));
    // The library's check knows nothing of addresses: only a run tells.
    if (algorithm == null || product.run(algorithm) != 0) {
      List<MemorySegment> ways = candidates(plan, rows, CANDIDATES);
      algorithm = choice.fastest(ways, product::run, stream);
      if (algorithm == null) {
        return ways.getFirst(); // its failure will say why
      }
      byte[] bytes = algorithm.toArray(ValueLayout.JAVA_BYTE);
      choice.keep(key, KEPT + HexFormat.of().formatHex(bytes));
    }
    plan.timed.put(rows, algorithm);
    return algorithm;
  }

  /** What was kept, if this library takes it. */
  private @Nullable MemorySegment kept(Plan plan, @Nullable String way) {
    if (way == null || way.length() != KEPT.length() + 2 * CublasLtLibrary.ALGORITHM_BYTES) {
      return null;
    }
    if (!way.startsWith(KEPT)) {
      return null;
    }
    byte[] bytes;
    try {
      bytes = HexFormat.of().parseHex(way, KEPT.length(), way.length());
    } catch (IllegalArgumentException e) {
      return null;
    }
    MemorySegment algorithm = arena.allocate(bytes.length, Long.BYTES);
    MemorySegment.copy(bytes, 0, algorithm, ValueLayout.JAVA_BYTE, 0, bytes.length);
    return does(plan, algorithm) ? algorithm : null;
  }

  private boolean does(Plan plan, MemorySegment algorithm) {
    return library.does(plan.operation, plan.layouts, algorithm, CublasLt.WORKSPACE_BYTES);
  }

  /**
   * What was best for the next larger number of rows that was timed: nothing is loaded then that
   * has not run before.
   */
  private MemorySegment untimed(Plan plan, int rows) {
    Map.Entry<Integer, MemorySegment> next = plan.timed.ceilingEntry(rows);
    if (next != null && does(plan, next.getValue())) {
      return next.getValue();
    }
    return candidates(plan, rows, 1).getFirst();
  }

  /** Those that the library thinks best, at least one. */
  private List<MemorySegment> candidates(Plan plan, int rows, int most) {
    Wanted wanted = new Wanted(most, CublasLt.WORKSPACE_BYTES, plan.shape.alignment());
    List<MemorySegment> found =
        library.algorithms(
            plan.operation, plan.layouts, wanted, () -> rows + " rows of " + plan.shape);
    if (found.isEmpty()) {
      throw new CudaException(
          "%s knows no way to multiply %d rows of %s".formatted(library.name(), rows, plan.shape));
    }
    return found;
  }
}
