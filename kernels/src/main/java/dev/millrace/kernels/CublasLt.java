package dev.millrace.kernels;

import static java.lang.foreign.ValueLayout.ADDRESS;
import static java.lang.foreign.ValueLayout.JAVA_FLOAT;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SymbolLookup;
import java.lang.invoke.MethodHandle;
import java.nio.file.Path;
import java.util.ArrayList;
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
  private static final int COMPUTE_32F = 68;
  private static final int OP_T = 1;
  private static final int DESC_TRANSA = 3;
  private static final int LAYOUT_COLS = 3;
  private static final int PREF_MAX_WORKSPACE_BYTES = 1;
  private static final int PREF_MIN_ALIGNMENT_A_BYTES = 5;
  private static final long HEURISTIC_BYTES = 96;
  private static final long HEURISTIC_STATE = 72;

  private static final int MOST_ALIGNMENT = 256;

  private final Functions f;
  private final String name;
  private final long workspace;
  private final Arena arena = Arena.ofAuto();
  private final long handle;
  private final long operation;
  private final MemorySegment one;
  private final MemorySegment zero;
  private final MemorySegment number = arena.allocate(JAVA_LONG);
  private final Map<Shape, Plan> plans = new HashMap<>();

  /** What a product's numbers are. */
  public enum Output {
    BF16(R_16BF),
    F32(R_32F);

    private final int type;

    Output(int type) {
      this.type = type;
    }
  }

  /**
   * A product's shape but for its rows.
   *
   * @param inputs columns of weight and x
   * @param outputs rows of the weight, columns of out
   * @param alignment bytes that every address is a multiple of, at most 256
   */
  private record Shape(
      int inputs, int outputs, int xStride, int outStride, Output output, int alignment) {}

  /** The library's descriptions of a shape; algorithms by the number of rows. */
  private record Plan(
      Shape shape, long weight, long x, long out, Map<Integer, MemorySegment> algorithms) {}

  /** The library's functions; pointers to its own objects are numbers. */
  private static final class Functions {
    final MethodHandle create;
    final MethodHandle destroy;
    final MethodHandle descCreate;
    final MethodHandle descDestroy;
    final MethodHandle descSet;
    final MethodHandle layoutCreate;
    final MethodHandle layoutDestroy;
    final MethodHandle layoutSet;
    final MethodHandle preferenceCreate;
    final MethodHandle preferenceDestroy;
    final MethodHandle preferenceSet;
    final MethodHandle heuristic;
    final MethodHandle matmul;

    Functions(Natives n) {
      this.create = n.function("cublasLtCreate", ADDRESS);
      this.destroy = n.function("cublasLtDestroy", JAVA_LONG);
      this.descCreate = n.function("cublasLtMatmulDescCreate", ADDRESS, JAVA_INT, JAVA_INT);
      this.descDestroy = n.function("cublasLtMatmulDescDestroy", JAVA_LONG);
      this.descSet =
          n.function("cublasLtMatmulDescSetAttribute", JAVA_LONG, JAVA_INT, ADDRESS, JAVA_LONG);
      this.layoutCreate =
          n.function(
              "cublasLtMatrixLayoutCreate", ADDRESS, JAVA_INT, JAVA_LONG, JAVA_LONG, JAVA_LONG);
      this.layoutDestroy = n.function("cublasLtMatrixLayoutDestroy", JAVA_LONG);
      this.layoutSet =
          n.function("cublasLtMatrixLayoutSetAttribute", JAVA_LONG, JAVA_INT, ADDRESS, JAVA_LONG);
      this.preferenceCreate = n.function("cublasLtMatmulPreferenceCreate", ADDRESS);
      this.preferenceDestroy = n.function("cublasLtMatmulPreferenceDestroy", JAVA_LONG);
      this.preferenceSet =
          n.function(
              "cublasLtMatmulPreferenceSetAttribute", JAVA_LONG, JAVA_INT, ADDRESS, JAVA_LONG);
      this.heuristic =
          n.function(
              "cublasLtMatmulAlgoGetHeuristic",
              JAVA_LONG, // handle
              JAVA_LONG, // operation
              JAVA_LONG, // layouts of A, B, C, D
              JAVA_LONG,
              JAVA_LONG,
              JAVA_LONG,
              JAVA_LONG, // preference
              JAVA_INT, // algorithms asked for
              ADDRESS, // results
              ADDRESS); // their number
      this.matmul =
          n.function(
              "cublasLtMatmul",
              JAVA_LONG, // handle
              JAVA_LONG, // operation
              ADDRESS, // alpha
              JAVA_LONG, // A and its layout
              JAVA_LONG,
              JAVA_LONG, // B and its layout
              JAVA_LONG,
              ADDRESS, // beta
              JAVA_LONG, // C and its layout
              JAVA_LONG,
              JAVA_LONG, // D and its layout
              JAVA_LONG,
              ADDRESS, // algorithm
              JAVA_LONG, // workspace
              JAVA_LONG, // its bytes
              JAVA_LONG); // stream
    }
  }

  /**
   * Finds the library of CUDA 13 or 12.
   *
   * @param folder where it is; null: where the system and NVIDIA's installer keep libraries
   * @param workspace {@link #WORKSPACE_BYTES} bytes on the device, a multiple of 256
   * @throws CudaException if it is nowhere; the message says where it was looked for
   */
  public static CublasLt open(@Nullable Path folder, long workspace) {
    List<String> tried = new ArrayList<>();
    for (String place : places(folder)) {
      try {
        return new CublasLt(place, SymbolLookup.libraryLookup(place, Arena.global()), workspace);
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

  CublasLt(String name, SymbolLookup library, long workspace) {
    this.name = name;
    this.workspace = workspace;
    this.f = new Functions(new Natives(name, library));
    this.one = arena.allocateFrom(JAVA_FLOAT, 1);
    this.zero = arena.allocateFrom(JAVA_FLOAT, 0);
    this.handle = made("cublasLtCreate", () -> (int) f.create.invokeExact(number));
    this.operation =
        made(
            "cublasLtMatmulDescCreate",
            () -> (int) f.descCreate.invokeExact(number, COMPUTE_32F, R_32F));
    MemorySegment transpose = arena.allocateFrom(JAVA_INT, OP_T);
    call(
        "cublasLtMatmulDescSetAttribute(TRANSA)",
        () -> (int) f.descSet.invokeExact(operation, DESC_TRANSA, transpose, 4L));
  }

  /** Which library it is. */
  public String name() {
    return name;
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
    Shape shape = new Shape(inputs, outputs, x.stride(), out.stride(), output, alignment);
    Plan plan = plans.computeIfAbsent(shape, this::plan);
    setRows(plan, rows);
    MemorySegment algorithm = algorithm(plan, rows);
    call(
        () ->
            "cublasLtMatmul(%d rows, %s, weight 0x%x, x 0x%x, out 0x%x)"
                .formatted(rows, shape, weight, x.address(), out.address()),
        () ->
            (int)
                f.matmul.invokeExact(
                    handle,
                    operation,
                    one,
                    weight,
                    plan.weight,
                    x.address(),
                    plan.x,
                    zero,
                    out.address(),
                    plan.out,
                    out.address(),
                    plan.out,
                    algorithm,
                    workspace,
                    WORKSPACE_BYTES,
                    stream.address()));
  }

  static int alignment(long addresses) {
    long bit = Long.lowestOneBit(addresses);
    return bit == 0 || bit > MOST_ALIGNMENT ? MOST_ALIGNMENT : (int) bit;
  }

  private Plan plan(Shape s) {
    return new Plan(
        s,
        layout(R_16BF, s.inputs, s.outputs, s.inputs),
        layout(R_16BF, s.inputs, 1, s.xStride),
        layout(s.output.type, s.outputs, 1, s.outStride),
        new HashMap<>());
  }

  private long layout(int type, long rows, long columns, long stride) {
    return made(
        "cublasLtMatrixLayoutCreate(%d x %d, stride %d)".formatted(rows, columns, stride),
        () -> (int) f.layoutCreate.invokeExact(number, type, rows, columns, stride));
  }

  private void setRows(Plan plan, long rows) {
    number.set(JAVA_LONG, 0, rows);
    call(
        "cublasLtMatrixLayoutSetAttribute(COLS)",
        () -> (int) f.layoutSet.invokeExact(plan.x, LAYOUT_COLS, number, 8L));
    call(
        "cublasLtMatrixLayoutSetAttribute(COLS)",
        () -> (int) f.layoutSet.invokeExact(plan.out, LAYOUT_COLS, number, 8L));
  }

  /** The one that the library thinks best; asked once for each number of rows. */
  private MemorySegment algorithm(Plan plan, int rows) {
    MemorySegment known = plan.algorithms.get(rows);
    if (known != null) {
      return known;
    }
    MemorySegment found = arena.allocate(HEURISTIC_BYTES, 8);
    MemorySegment count = arena.allocate(JAVA_INT);
    long preference =
        made("cublasLtMatmulPreferenceCreate", () -> (int) f.preferenceCreate.invokeExact(number));
    try {
      MemorySegment bytes = arena.allocateFrom(JAVA_LONG, WORKSPACE_BYTES);
      call(
          "cublasLtMatmulPreferenceSetAttribute(MAX_WORKSPACE_BYTES)",
          () -> (int) f.preferenceSet.invokeExact(preference, PREF_MAX_WORKSPACE_BYTES, bytes, 8L));
      MemorySegment alignment = arena.allocateFrom(JAVA_INT, plan.shape.alignment);
      for (int matrix = 0; matrix < 4; matrix++) {
        int attribute = PREF_MIN_ALIGNMENT_A_BYTES + matrix;
        call(
            "cublasLtMatmulPreferenceSetAttribute(MIN_ALIGNMENT)",
            () -> (int) f.preferenceSet.invokeExact(preference, attribute, alignment, 4L));
      }
      call(
          () -> "cublasLtMatmulAlgoGetHeuristic(%d rows, %s)".formatted(rows, plan.shape),
          () ->
              (int)
                  f.heuristic.invokeExact(
                      handle,
                      operation,
                      plan.weight,
                      plan.x,
                      plan.out,
                      plan.out,
                      preference,
                      1,
                      found,
                      count));
    } finally {
      call(
          "cublasLtMatmulPreferenceDestroy",
          () -> (int) f.preferenceDestroy.invokeExact(preference));
    }
    int state = found.get(JAVA_INT, HEURISTIC_STATE);
    if (count.get(JAVA_INT, 0) < 1 || state != 0) {
      throw new CudaException(
          "%s knows no way to multiply %d rows of %s (state %d)"
              .formatted(name, rows, plan.shape, state));
    }
    plan.algorithms.put(rows, found);
    return found;
  }

  private interface Call {
    @SuppressWarnings("checkstyle:IllegalThrows") // what a method handle declares
    int run() throws Throwable;
  }

  private long made(String what, Call call) {
    call(what, call);
    return number.get(JAVA_LONG, 0);
  }

  private void call(String what, Call call) {
    call(() -> what, call);
  }

  private void call(java.util.function.Supplier<String> what, Call call) {
    int status;
    try {
      status = call.run();
    } catch (Throwable e) {
      throw Natives.unchecked(e);
    }
    if (status != 0) {
      throw new CudaException(what.get() + " failed: " + status(status) + " (" + name + ")");
    }
  }

  /** Of cublas_api.h. */
  private static String status(int status) {
    return switch (status) {
      case 1 -> "CUBLAS_STATUS_NOT_INITIALIZED (1): the library could not start on this GPU";
      case 3 -> "CUBLAS_STATUS_ALLOC_FAILED (3): out of memory";
      case 7 -> "CUBLAS_STATUS_INVALID_VALUE (7)";
      case 8 -> "CUBLAS_STATUS_ARCH_MISMATCH (8): the library has no code for this GPU";
      case 11 -> "CUBLAS_STATUS_MAPPING_ERROR (11)";
      case 13 -> "CUBLAS_STATUS_EXECUTION_FAILED (13)";
      case 14 -> "CUBLAS_STATUS_INTERNAL_ERROR (14)";
      case 15 -> "CUBLAS_STATUS_NOT_SUPPORTED (15)";
      default -> "status " + status;
    };
  }

  @Override
  public void close() {
    for (Plan plan : plans.values()) {
      for (long layout : new long[] {plan.weight, plan.x, plan.out}) {
        call("cublasLtMatrixLayoutDestroy", () -> (int) f.layoutDestroy.invokeExact(layout));
      }
    }
    plans.clear();
    call("cublasLtMatmulDescDestroy", () -> (int) f.descDestroy.invokeExact(operation));
    call("cublasLtDestroy", () -> (int) f.destroy.invokeExact(handle));
  }
}
