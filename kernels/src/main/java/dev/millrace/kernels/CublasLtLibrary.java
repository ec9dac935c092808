package dev.millrace.kernels;

import static java.lang.foreign.ValueLayout.ADDRESS;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SymbolLookup;
import java.lang.invoke.MethodHandle;
import java.util.ArrayList;
import java.util.List;
import java.util.function.Supplier;

/**
 * The functions of cuBLASLt and one handle of the library. Pointers to its own objects are numbers
 * here; what makes such an object leaves it to the caller to destroy. Failures come as {@link
 * CudaException} unless a method returns a status.
 */
final class CublasLtLibrary implements ProductAlgorithms.Library, AutoCloseable {
  // Of cublasLt.h and library_types.h.
  private static final int NOT_SUPPORTED = 15;
  private static final int R_32F = 0;
  private static final int COMPUTE_32F = 68;
  private static final int LAYOUT_COLS = 3;
  private static final int PREF_MAX_WORKSPACE_BYTES = 1;
  private static final int PREF_REDUCTION_SCHEME_MASK = 3;
  private static final int PREF_MIN_ALIGNMENT_A_BYTES = 5;
  private static final long HEURISTIC_BYTES = 96;
  private static final long HEURISTIC_WORKSPACE = 64;
  private static final long HEURISTIC_STATE = 72;

  /** Bytes of an algorithm, which mean something to this version of the library alone. */
  static final int ALGORITHM_BYTES = 64;

  private final String name;
  private final MethodHandle destroy;
  private final MethodHandle descCreate;
  private final MethodHandle descDestroy;
  private final MethodHandle descSet;
  private final MethodHandle layoutCreate;
  private final MethodHandle layoutDestroy;
  private final MethodHandle layoutSet;
  private final MethodHandle preferenceCreate;
  private final MethodHandle preferenceDestroy;
  private final MethodHandle preferenceSet;
  private final MethodHandle heuristic;
  private final MethodHandle check;
  private final MethodHandle matmul;

  private final Arena arena = Arena.ofAuto();
  private final MemorySegment number = arena.allocate(JAVA_LONG);
  private final MemorySegment zero = arena.allocate(JAVA_LONG); // a float's too
  private final MethodHandle version;
  private final long handle;

  /** The library's descriptions of a product's matrices; {@code out} stands for two of them. */
  record Layouts(long weight, long x, long out) {}

  /** A product's addresses, and where it may leave partial sums. */
  record Operands(long weight, long x, long out, long workspace, long workspaceBytes) {}

  /**
   * What an algorithm may be.
   *
   * @param workspace most bytes for partial sums
   * @param alignment bytes that every address is a multiple of
   * @param splits whether it may add up partial sums of several blocks
   */
  record Wanted(int most, long workspace, int alignment, boolean splits) {}

  /**
   * @param name where it was found
   */
  CublasLtLibrary(String name, SymbolLookup library) {
    Natives n = new Natives(name, library);
    this.name = name;
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
        n.function("cublasLtMatmulPreferenceSetAttribute", JAVA_LONG, JAVA_INT, ADDRESS, JAVA_LONG);
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
    this.check =
        n.function(
            "cublasLtMatmulAlgoCheck",
            JAVA_LONG, // handle
            JAVA_LONG, // operation
            JAVA_LONG, // layouts of A, B, C, D
            JAVA_LONG,
            JAVA_LONG,
            JAVA_LONG,
            ADDRESS, // algorithm
            ADDRESS); // result
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
    this.version = n.function("cublasLtGetVersion");
    MethodHandle create = n.function("cublasLtCreate", ADDRESS);
    this.handle = made("cublasLtCreate", () -> (int) create.invokeExact(number));
  }

  @Override
  public String name() {
    return name;
  }

  /** 130101 for 13.1.1. The function returns a size_t, of which this is the lower half. */
  int version() {
    return status(() -> (int) version.invokeExact());
  }

  // Operations.

  long operation() {
    return made(
        "cublasLtMatmulDescCreate", () -> (int) descCreate.invokeExact(number, COMPUTE_32F, R_32F));
  }

  void destroyOperation(long operation) {
    call("cublasLtMatmulDescDestroy", () -> (int) descDestroy.invokeExact(operation));
  }

  void set(long operation, String what, int attribute, MemorySegment value) {
    call(
        () -> "cublasLtMatmulDescSetAttribute(" + what + ")",
        () -> (int) descSet.invokeExact(operation, attribute, value, value.byteSize()));
  }

  // Layouts.

  long layout(int type, long rows, long columns, long stride) {
    return made(
        "cublasLtMatrixLayoutCreate(%d x %d, stride %d)".formatted(rows, columns, stride),
        () -> (int) layoutCreate.invokeExact(number, type, rows, columns, stride));
  }

  void destroyLayout(long layout) {
    call("cublasLtMatrixLayoutDestroy", () -> (int) layoutDestroy.invokeExact(layout));
  }

  @Override
  public void setColumns(long layout, long columns) {
    number.set(JAVA_LONG, 0, columns);
    call(
        "cublasLtMatrixLayoutSetAttribute(COLS)",
        () -> (int) layoutSet.invokeExact(layout, LAYOUT_COLS, number, 8L));
  }

  // Algorithms.

  /** Those that the library thinks best, best first; none where it knows no way. */
  @Override
  public List<MemorySegment> algorithms(
      long operation, Layouts layouts, Wanted wanted, Supplier<String> what) {
    MemorySegment found = arena.allocate(wanted.most * HEURISTIC_BYTES, 8);
    MemorySegment count = arena.allocate(JAVA_INT);
    long preference =
        made("cublasLtMatmulPreferenceCreate", () -> (int) preferenceCreate.invokeExact(number));
    int status;
    try {
      MemorySegment bytes = arena.allocateFrom(JAVA_LONG, wanted.workspace);
      prefer(preference, "MAX_WORKSPACE_BYTES", PREF_MAX_WORKSPACE_BYTES, bytes);
      if (!wanted.splits) {
        MemorySegment none = arena.allocateFrom(JAVA_INT, 0);
        prefer(preference, "REDUCTION_SCHEME_MASK", PREF_REDUCTION_SCHEME_MASK, none);
      }
      MemorySegment alignment = arena.allocateFrom(JAVA_INT, wanted.alignment);
      for (int matrix = 0; matrix < 4; matrix++) {
        prefer(preference, "MIN_ALIGNMENT", PREF_MIN_ALIGNMENT_A_BYTES + matrix, alignment);
      }
      status =
          status(
              () ->
                  (int)
                      heuristic.invokeExact(
                          handle,
                          operation,
                          layouts.weight,
                          layouts.x,
                          layouts.out,
                          layouts.out,
                          preference,
                          wanted.most,
                          found,
                          count));
    } finally {
      call(
          "cublasLtMatmulPreferenceDestroy", () -> (int) preferenceDestroy.invokeExact(preference));
    }
    if (status == NOT_SUPPORTED) {
      return List.of();
    }
    check(status, () -> "cublasLtMatmulAlgoGetHeuristic(" + what.get() + ")");
    List<MemorySegment> usable = new ArrayList<>();
    for (int i = 0; i < count.get(JAVA_INT, 0); i++) {
      MemorySegment one = found.asSlice(i * HEURISTIC_BYTES, HEURISTIC_BYTES);
      if (one.get(JAVA_INT, HEURISTIC_STATE) == 0) {
        usable.add(one.asSlice(0, ALGORITHM_BYTES));
      }
    }
    return usable;
  }

  private void prefer(long preference, String what, int attribute, MemorySegment value) {
    call(
        () -> "cublasLtMatmulPreferenceSetAttribute(" + what + ")",
        () -> (int) preferenceSet.invokeExact(preference, attribute, value, value.byteSize()));
  }

  /** Whether an algorithm does for layouts with at most so many bytes for partial sums. */
  @Override
  public boolean does(long operation, Layouts layouts, MemorySegment algorithm, long workspace) {
    MemorySegment result = arena.allocate(HEURISTIC_BYTES, 8);
    int status =
        status(
            () ->
                (int)
                    check.invokeExact(
                        handle,
                        operation,
                        layouts.weight,
                        layouts.x,
                        layouts.out,
                        layouts.out,
                        algorithm,
                        result));
    return status == 0 && result.get(JAVA_LONG, HEURISTIC_WORKSPACE) <= workspace;
  }

  /**
   * Returns before it is done; the result is a status for {@link #check}.
   *
   * @param alpha one float on the host
   */
  int multiply(
      long operation,
      Layouts layouts,
      Operands at,
      MemorySegment alpha,
      MemorySegment algorithm,
      Stream stream) {
    return status(
        () ->
            (int)
                matmul.invokeExact(
                    handle,
                    operation,
                    alpha,
                    at.weight,
                    layouts.weight,
                    at.x,
                    layouts.x,
                    zero,
                    at.out,
                    layouts.out,
                    at.out,
                    layouts.out,
                    algorithm,
                    at.workspace,
                    at.workspaceBytes,
                    stream.address()));
  }

  // Calls.

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

  private void call(Supplier<String> what, Call call) {
    check(status(call), what);
  }

  private static int status(Call call) {
    try {
      return call.run();
    } catch (Throwable e) {
      throw Natives.unchecked(e);
    }
  }

  /** Throws what a status other than 0 means. */
  void check(int status, Supplier<String> what) {
    if (status != 0) {
      throw new CudaException(what.get() + " failed: " + meaning(status) + " (" + name + ")");
    }
  }

  /** Of cublas_api.h. */
  private static String meaning(int status) {
    return switch (status) {
      case 1 -> "CUBLAS_STATUS_NOT_INITIALIZED (1): the library could not start on this GPU";
      case 3 -> "CUBLAS_STATUS_ALLOC_FAILED (3): out of memory";
      case 7 -> "CUBLAS_STATUS_INVALID_VALUE (7)";
      case 8 -> "CUBLAS_STATUS_ARCH_MISMATCH (8): the library has no code for this GPU";
      case 11 -> "CUBLAS_STATUS_MAPPING_ERROR (11)";
      case 13 -> "CUBLAS_STATUS_EXECUTION_FAILED (13)";
      case 14 -> "CUBLAS_STATUS_INTERNAL_ERROR (14)";
      case NOT_SUPPORTED -> "CUBLAS_STATUS_NOT_SUPPORTED (15)";
      default -> "status " + status;
    };
  }

  @Override
  public void close() {
    call("cublasLtDestroy", () -> (int) destroy.invokeExact(handle));
  }
}
