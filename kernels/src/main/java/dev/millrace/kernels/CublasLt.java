package dev.millrace.kernels;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static java.lang.foreign.ValueLayout.JAVA_FLOAT;
import static java.lang.foreign.ValueLayout.JAVA_INT;

import dev.millrace.kernels.CublasLtLibrary.Layouts;
import dev.millrace.kernels.CublasLtLibrary.Operands;
import dev.millrace.kernels.ProductAlgorithms.Plan;
import dev.millrace.kernels.ProductShape.Kind;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SymbolLookup;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.EnumMap;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * Matrix products by NVIDIA's cuBLASLt, through Java's foreign-function API. Works in the current
 * context; whoever opens it closes it. One thread at a time.
 *
 * <p>The library takes matrices column by column. Rows of ours are its columns: out = x · weightᵀ
 * is to it outᵀ = weight · xᵀ with the first factor transposed.
 *
 * <p>Opened as invariant, what a row of a product comes to depends on that row and the weight
 * alone, to the bit: see {@link ProductAlgorithms}. That holds for {@link #multiply} and {@link
 * #multiplyFp8}, each compared with itself.
 */
public final class CublasLt implements AutoCloseable {
  /** What the library may use for partial sums; as much as it asks for on a Hopper GPU. */
  public static final long WORKSPACE_BYTES = 32L << 20;

  private static final List<String> NAMES =
      List.of("libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so");

  /** Where installers put the library beside the places that the system searches. */
  private static final List<String> FOLDERS =
      List.of("/usr/local/cuda/lib64", "/usr/local/cuda/targets/x86_64-linux/lib");

  // Of cublasLt.h and library_types.h.
  private static final int R_32F = 0;
  private static final int R_16BF = 14;
  private static final int R_8F_E4M3 = 28;
  private static final int OP_T = 1;
  private static final int DESC_TRANSA = 3;
  private static final int DESC_FAST_ACCUM = 25;

  private static final int MOST_ALIGNMENT = 256;

  /** What FP8 products want addresses, rows and columns to be multiples of. */
  public static final int FP8_ALIGNMENT = 16;

  private final CublasLtLibrary library;
  private final long workspace;
  private final ProductAlgorithms algorithms;
  private final Arena arena = Arena.ofAuto();
  private final Map<Kind, Long> operations = new EnumMap<>(Kind.class);
  private final MemorySegment alpha = arena.allocate(JAVA_FLOAT);
  private final Map<ProductShape, Plan> plans = new HashMap<>();
  private @Nullable ProductChoice choice;

  /** What a product's numbers are. */
  public enum Output {
    BF16(R_16BF, Short.BYTES),
    F32(R_32F, Float.BYTES);

    private final int type;
    private final int bytes;

    Output(int type, int bytes) {
      this.type = type;
      this.bytes = bytes;
    }

    int bytes() {
      return bytes;
    }
  }

  /**
   * Finds the library of CUDA 13 or 12.
   *
   * @param folder where it is; null: where the system and NVIDIA's installer keep libraries
   * @param workspace {@link #WORKSPACE_BYTES} bytes on the device, a multiple of 256
   * @param invariant whether a row's result may depend on nothing but the row and the weight
   * @throws CudaException if it is nowhere; the message says where it was looked for
   */
  public static CublasLt open(@Nullable Path folder, long workspace, boolean invariant) {
    List<String> tried = new ArrayList<>();
    for (String place : places(folder)) {
      try {
        SymbolLookup library = SymbolLookup.libraryLookup(place, Arena.global());
        return new CublasLt(place, library, workspace, invariant);
      } catch (IllegalArgumentException e) {
        tried.add(place);
      }
    }
    throw new CudaException(
        "NVIDIA's cuBLASLt library was not found. Install cuBLAS of CUDA 13 or 12 or say in which"
            + " folder it is. Tried: "
            + String.join(", ", tried));
  }

  /** Names by which the library may be opened, best first. */
  static List<String> places(@Nullable Path folder) {
    if (folder != null) {
      return NAMES.stream().map(n -> folder.resolve(n).toAbsolutePath().toString()).toList();
    }
    List<String> places = new ArrayList<>(NAMES);
    FOLDERS.forEach(f -> NAMES.forEach(n -> places.add(f + "/" + n)));
    return places;
  }

  CublasLt(String name, SymbolLookup library, long workspace, boolean invariant) {
    this.library = new CublasLtLibrary(name, library);
    this.workspace = workspace;
    this.algorithms = new ProductAlgorithms(this.library, invariant);
  }

  /** Which library it is. */
  public String name() {
    return library.name();
  }

  /** Its version, 130101 for 13.1.1. */
  public int version() {
    return library.version();
  }

  /**
   * Chooses algorithms by time from here on, each when a shape first comes with a number of rows
   * and nothing was kept of it: the library's first guess is often not its best. Later numbers of
   * rows get what is best for the next larger one that was timed, so that nothing is loaded any
   * more while others wait: what runs for the first time waits for all that was given to the GPU
   * before.
   */
  public void beginTiming(ProductChoice by) {
    choice = by;
  }

  public void endTiming() {
    choice = null;
  }

  /**
   * out = x · weightᵀ, summed in float.
   *
   * @param x [rows][inputs]
   * @param weight bfloat16 [outputs][inputs], contiguous
   * @param out [rows][outputs], bfloat16 or float as {@code output} says; its stride counts such
   */
  public void multiply(
      Rows x,
      int rows,
      long weight,
      int outputs,
      int inputs,
      Rows out,
      Output output,
      Stream stream) {
    int alignment = alignment(x.address() | weight | out.address());
    ProductShape shape =
        new ProductShape(Kind.BF16, inputs, outputs, x.stride(), out.stride(), output, alignment);
    multiply(shape, x, rows, weight, out, 1, stream);
  }

  /**
   * out = factor · x · weightᵀ of FP8. The matrix units sum it in their fast way, which keeps fewer
   * digits of long sums than a float has.
   *
   * @param x e4m3 [rows][inputs]; its stride counts such
   * @param weight e4m3 [outputs][inputs], contiguous
   * @param out [rows][outputs] of {@code output}; inputs and outputs are multiples of {@link
   *     #FP8_ALIGNMENT}, as are addresses and strides in bytes
   */
  public void multiplyFp8(
      Rows x,
      int rows,
      long weight,
      int outputs,
      int inputs,
      Rows out,
      Output output,
      float factor,
      Stream stream) {
    int alignment = alignment(x.address() | weight | out.address());
    if (alignment < FP8_ALIGNMENT || (inputs | outputs) % FP8_ALIGNMENT != 0) {
      throw new IllegalArgumentException(
          "%d x %d numbers at multiples of %d bytes: FP8 products want multiples of %d"
              .formatted(outputs, inputs, alignment, FP8_ALIGNMENT));
    }
    ProductShape shape =
        new ProductShape(Kind.FP8, inputs, outputs, x.stride(), out.stride(), output, alignment);
    multiply(shape, x, rows, weight, out, factor, stream);
  }

  private void multiply(
      ProductShape shape, Rows x, int rows, long weight, Rows out, float factor, Stream stream) {
    Plan plan = plans.computeIfAbsent(shape, this::plan);
    alpha.set(JAVA_FLOAT, 0, factor);
    Operands at = new Operands(weight, x.address(), out.address(), workspace, WORKSPACE_BYTES);
    ProductAlgorithms.Product product =
        algorithm -> library.multiply(plan.operation, plan.layouts, at, alpha, algorithm, stream);
    MemorySegment algorithm = algorithms.of(plan, rows, out, product, choice, stream);
    library.check(
        product.run(algorithm),
        () ->
            "cublasLtMatmul(%d rows, %s, weight 0x%x, x 0x%x, out 0x%x)"
                .formatted(rows, shape, weight, x.address(), out.address()));
  }

  static int alignment(long addresses) {
    long bit = Long.lowestOneBit(addresses);
    return bit == 0 || bit > MOST_ALIGNMENT ? MOST_ALIGNMENT : (int) bit;
  }

  // What the library is told of kinds and shapes.

  private long operation(Kind kind) {
    Long known = operations.get(kind);
    if (known != null) {
      return known;
    }
    long made = library.operation();
    try {
      describe(kind, made);
    } catch (CudaException e) {
      // Half described it would compute something else.
      library.destroyOperation(made);
      throw e;
    }
    operations.put(kind, made);
    return made;
  }

  private void describe(Kind kind, long operation) {
    library.set(operation, "TRANSA", DESC_TRANSA, arena.allocateFrom(JAVA_INT, OP_T));
    if (kind != Kind.BF16) {
      MemorySegment fast = arena.allocateFrom(JAVA_BYTE, (byte) 1);
      library.set(operation, "FAST_ACCUM", DESC_FAST_ACCUM, fast);
    }
  }

  private Plan plan(ProductShape s) {
    int type = s.kind() == Kind.BF16 ? R_16BF : R_8F_E4M3;
    return new Plan(
        s,
        operation(s.kind()),
        new Layouts(
            library.layout(type, s.inputs(), s.outputs(), s.inputs()),
            library.layout(type, s.inputs(), 1, s.xStride()),
            library.layout(s.output().type, s.outputs(), 1, s.outStride())));
  }

  @Override
  public void close() {
    for (Plan plan : plans.values()) {
      Layouts l = plan.layouts;
      for (long layout : new long[] {l.weight(), l.x(), l.out()}) {
        library.destroyLayout(layout);
      }
    }
    plans.clear();
    operations.values().forEach(library::destroyOperation);
    operations.clear();
    library.close();
  }
}
