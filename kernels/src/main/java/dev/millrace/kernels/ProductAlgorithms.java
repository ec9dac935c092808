package dev.millrace.kernels;

import dev.millrace.kernels.CublasLtLibrary.Layouts;
import dev.millrace.kernels.CublasLtLibrary.Wanted;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.function.Supplier;
import org.jspecify.annotations.Nullable;

/**
 * Which of the library's algorithms multiplies a shape at a number of rows: the fastest of those
 * that the library thinks best, once timed, else its first guess.
 *
 * <p>Where results are to be invariant, a row's bits may not depend on how many rows there are nor
 * on its place among them. Then nothing is split along the inputs, which leaves each number of a
 * result one sum in the order of its inputs, whatever the shape of the tiles; and each algorithm
 * must leave the same bits as the reference, one that is chosen by the shape alone, before it may
 * be taken for its speed.
 */
final class ProductAlgorithms {
  /** Algorithms that are timed of those that the library thinks best. */
  private static final int CANDIDATES = 8;

  /** Rows for which the library is asked for a reference. */
  private static final int REFERENCE_ROWS = 64;

  /** Rows of a result that are compared: the first, the last and some between. */
  private static final int SAMPLES = 8;

  /** Begins what is kept of an algorithm; other ways to compute a product begin otherwise. */
  private static final String KEPT = "cublaslt ";

  private final Library library;
  private final boolean invariant;
  private final Arena arena = Arena.ofAuto();

  /** A shape's descriptions for the library, and its algorithms by rows; some of them timed. */
  static final class Plan {
    final ProductShape shape;
    final long operation;
    final Layouts layouts;
    private final Map<Integer, MemorySegment> algorithms = new HashMap<>();
    private final TreeMap<Integer, MemorySegment> timed = new TreeMap<>();
    private @Nullable MemorySegment reference;

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

  /** What is asked of {@link CublasLtLibrary}, which says what it means. */
  interface Library {
    String name();

    void setColumns(long layout, long columns);

    List<MemorySegment> algorithms(
        long operation, Layouts layouts, Wanted wanted, Supplier<String> what);

    boolean does(long operation, Layouts layouts, MemorySegment algorithm, long workspace);
  }

  ProductAlgorithms(Library library, boolean invariant) {
    this.library = library;
    this.invariant = invariant;
  }

  /**
   * The algorithm to take.
   *
   * @param choice times those that are not known yet; null: nothing is timed now
   */
  MemorySegment of(
      Plan plan,
      int rows,
      Rows out,
      Product product,
      @Nullable ProductChoice choice,
      Stream stream) {
    MemorySegment known = plan.algorithms.get(rows);
    if (known == null) {
      setRows(plan, rows);
      known =
          choice == null ? untimed(plan, rows) : timed(plan, rows, out, product, choice, stream);
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
      Plan plan, int rows, Rows out, Product product, ProductChoice choice, Stream stream) {
    String key = (invariant ? "invariant " : "") + plan.shape.key(rows);
    MemorySegment algorithm = kept(plan, choice.kept(key));
    // The library's check knows nothing of addresses, nor of bits: only a run tells.
    if (algorithm == null || !holds(plan, rows, algorithm, out, product, choice)) {
      List<MemorySegment> ways = candidates(plan, rows, CANDIDATES);
      if (invariant) {
        ways = equal(plan, rows, ways, out, product, choice);
      }
      algorithm = choice.fastest(ways, product::run, stream);
      if (algorithm == null) {
        // The failure of the first will say why.
        return invariant ? proved(plan, rows) : ways.getFirst();
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

  /** Whether what was kept works here, and leaves the right bits where these matter. */
  private boolean holds(
      Plan plan, int rows, MemorySegment kept, Rows out, Product product, ProductChoice choice) {
    return invariant
        ? equal(plan, rows, List.of(kept), out, product, choice).contains(kept)
        : product.run(kept) == 0;
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
    return invariant ? proved(plan, rows) : candidates(plan, rows, 1).getFirst();
  }

  /** Those that the library thinks best, at least one. */
  private List<MemorySegment> candidates(Plan plan, int rows, int most) {
    Wanted wanted =
        new Wanted(
            most, invariant ? 0 : CublasLt.WORKSPACE_BYTES, plan.shape.alignment(), !invariant);
    List<MemorySegment> found =
        library.algorithms(
            plan.operation, plan.layouts, wanted, () -> rows + " rows of " + plan.shape);
    if (found.isEmpty()) {
      throw new CudaException(
          "%s knows no way to multiply %d rows of %s%s"
              .formatted(
                  library.name(),
                  rows,
                  plan.shape,
                  invariant ? " without splitting sums, as invariant results need" : ""));
    }
    return found;
  }

  // Invariant results.

  /** The reference, or another that was found to leave the same bits, that takes so many rows. */
  private MemorySegment proved(Plan plan, int rows) {
    List<MemorySegment> ways = new ArrayList<>();
    ways.add(reference(plan, rows));
    ways.addAll(plan.timed.values());
    for (MemorySegment way : ways) {
      if (does(plan, way)) {
        return way;
      }
    }
    throw new CudaException(
        "%s takes no algorithm for %d rows of %s that is known to leave invariant results"
            .formatted(library.name(), rows, plan.shape));
  }

  /** The algorithm that says which bits are right; the layouts have {@code rows} afterwards. */
  private MemorySegment reference(Plan plan, int rows) {
    MemorySegment reference = plan.reference;
    if (reference == null) {
      setRows(plan, REFERENCE_ROWS);
      reference = candidates(plan, REFERENCE_ROWS, 1).getFirst();
      plan.reference = reference;
      setRows(plan, rows);
    }
    return reference;
  }

  /** The reference, and those of the ways that leave the same bits. */
  private List<MemorySegment> equal(
      Plan plan,
      int rows,
      List<MemorySegment> ways,
      Rows out,
      Product product,
      ProductChoice choice) {
    MemorySegment reference = reference(plan, rows);
    List<MemorySegment> equal = new ArrayList<>();
    equal.add(reference);
    try (Arena samples = Arena.ofShared()) {
      if (product.run(reference) != 0) {
        return equal;
      }
      MemorySegment expected = sample(plan.shape, rows, out, choice, samples);
      for (MemorySegment way : ways) {
        if (product.run(way) == 0
            && sample(plan.shape, rows, out, choice, samples).mismatch(expected) < 0) {
          equal.add(way);
        }
      }
    }
    return equal;
  }

  private static MemorySegment sample(
      ProductShape shape, int rows, Rows out, ProductChoice choice, Arena arena) {
    int count = Math.min(rows, SAMPLES);
    long rowBytes = (long) shape.outputs() * shape.output().bytes();
    MemorySegment all = arena.allocate(count * rowBytes, Long.BYTES);
    for (int i = 0; i < count; i++) {
      long row = count == 1 ? 0 : (long) i * (rows - 1) / (count - 1);
      long at = out.address() + row * out.stride() * shape.output().bytes();
      choice.fetch(at, all.asSlice(i * rowBytes, rowBytes));
    }
    return all;
  }
}
