package dev.millrace.kernels;

import static java.lang.foreign.ValueLayout.ADDRESS;
import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static java.lang.foreign.ValueLayout.JAVA_FLOAT;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SymbolLookup;
import java.lang.invoke.MethodHandle;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.EnumMap;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.function.Supplier;
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
  private static final int R_8F_E4M3 = 28;
  private static final int COMPUTE_32F = 68;
  private static final int OP_T = 1;
  private static final int DESC_TRANSA = 3;
  private static final int DESC_A_SCALE_POINTER = 17;
  private static final int DESC_B_SCALE_POINTER = 18;
  private static final int DESC_FAST_ACCUM = 25;
  private static final int DESC_A_SCALE_MODE = 31;
  private static final int DESC_B_SCALE_MODE = 32;
  private static final int OUTER_VEC_32F = 3;
  private static final int LAYOUT_COLS = 3;
  private static final int PREF_MAX_WORKSPACE_BYTES = 1;
  private static final int PREF_MIN_ALIGNMENT_A_BYTES = 5;
  private static final long HEURISTIC_BYTES = 96;
  private static final long HEURISTIC_WORKSPACE = 64;
  private static final long HEURISTIC_STATE = 72;

  /** Algorithms that are timed of those that the library thinks best, and how often. */
  private static final int CANDIDATES = 8;

  private static final int REPEATS = 3;

  private static final int MOST_ALIGNMENT = 256;

  /** What FP8 products want addresses, rows and columns to be multiples of. */
  public static final int FP8_ALIGNMENT = 16;

  private final Functions f;
  private final String name;
  private final long workspace;
  private final Arena arena = Arena.ofAuto();
  private final long handle;
  private final Map<Kind, Long> operations = new EnumMap<>(Kind.class);
  private final MemorySegment alpha = arena.allocate(JAVA_FLOAT);
  private final MemorySegment zero;
  private final MemorySegment number = arena.allocate(JAVA_LONG);
  private final Map<Shape, Plan> plans = new HashMap<>();
  private final Set<Shape> unscalable = new HashSet<>();
  private @Nullable Runnable timer;

  /** What a product's numbers are. */
  public enum Output {
    BF16(R_16BF),
    F32(R_32F);

    private final int type;

    Output(int type) {
      this.type = type;
    }
  }

  /** What is multiplied, and how its results are scaled. */
  private enum Kind {
    BF16,
    /** e4m3, all results by one number. */
    FP8,
    /** e4m3, each row of the results by one of its own. */
    FP8_ROWS
  }

  /**
   * A product's shape but for its rows.
   *
   * @param inputs columns of weight and x
   * @param outputs rows of the weight, columns of out
   * @param alignment bytes that every address is a multiple of, at most 256
   */
  private record Shape(
      Kind kind,
      int inputs,
      int outputs,
      int xStride,
      int outStride,
      Output output,
      int alignment) {}

  /**
   * The library's descriptions of a shape; algorithms by the number of rows, of which some were
   * found by timing.
   */
  private record Plan(
      Shape shape,
      long weight,
      long x,
      long out,
      Map<Integer, MemorySegment> algorithms,
      TreeMap<Integer, MemorySegment> timed) {}

  /** A product on its way to the library: its status, with an algorithm. */
  private interface Product {
    int run(MemorySegment algorithm);
  }

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
    final MethodHandle check;
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
    this.zero = arena.allocateFrom(JAVA_FLOAT, 0);
    this.handle = made("cublasLtCreate", () -> (int) f.create.invokeExact(number));
  }

  private long operation(Kind kind) {
    Long known = operations.get(kind);
    if (known != null) {
      return known;
    }
    long made =
        made(
            "cublasLtMatmulDescCreate",
            () -> (int) f.descCreate.invokeExact(number, COMPUTE_32F, R_32F));
    try {
      describe(kind, made);
    } catch (CudaException e) {
      // Half described it would compute something else.
      call("cublasLtMatmulDescDestroy", () -> (int) f.descDestroy.invokeExact(made));
      throw e;
    }
    operations.put(kind, made);
    return made;
  }

  private void describe(Kind kind, long operation) {
    set(operation, "TRANSA", DESC_TRANSA, arena.allocateFrom(JAVA_INT, OP_T));
    if (kind != Kind.BF16) {
      set(operation, "FAST_ACCUM", DESC_FAST_ACCUM, arena.allocateFrom(JAVA_BYTE, (byte) 1));
    }
    if (kind == Kind.FP8_ROWS) {
      MemorySegment mode = arena.allocateFrom(JAVA_INT, OUTER_VEC_32F);
      set(operation, "A_SCALE_MODE", DESC_A_SCALE_MODE, mode);
      set(operation, "B_SCALE_MODE", DESC_B_SCALE_MODE, mode);
    }
  }

  private void set(long operation, String name, int attribute, MemorySegment value) {
    call(
        () -> "cublasLtMatmulDescSetAttribute(" + name + ")",
        () -> (int) f.descSet.invokeExact(operation, attribute, value, value.byteSize()));
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
    Shape shape =
        new Shape(Kind.BF16, inputs, outputs, x.stride(), out.stride(), output, alignment);
    multiply(shape, x, rows, weight, out, 1, stream);
  }

  /**
   * out = factor · scale · x · weightᵀ of FP8. The matrix units sum it in their fast way, which
   * keeps fewer digits of long sums than a float has.
   *
   * @param x e4m3 [rows][inputs]; its stride counts such
   * @param weight e4m3 [outputs][inputs], contiguous
   * @param out [rows][outputs] of {@code output}; inputs and outputs are multiples of {@link
   *     #FP8_ALIGNMENT}, as are addresses and strides in bytes
   * @param scale one float on the device; 0: it is 1
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
      long scale,
      Stream stream) {
    // First: what makes it writes over the number.
    long operation = operation(Kind.FP8);
    number.set(JAVA_LONG, 0, scale);
    set(operation, "B_SCALE_POINTER", DESC_B_SCALE_POINTER, number);
    Shape shape = shape(Kind.FP8, x, weight, outputs, inputs, out, output);
    multiply(shape, x, rows, weight, out, factor, stream);
  }

  /**
   * As {@link #multiplyFp8}, and each row of the result times its scale.
   *
   * @param scales float [rows], on the device
   * @param ones float [outputs], on the device, each 1
   * @return false if this library cannot do that on this GPU: nothing was computed then
   */
  public boolean multiplyFp8Rows(
      Rows x,
      int rows,
      long weight,
      int outputs,
      int inputs,
      Rows out,
      Output output,
      float factor,
      long scales,
      long ones,
      Stream stream) {
    Shape shape = shape(Kind.FP8_ROWS, x, weight, outputs, inputs, out, output);
    if (unscalable.contains(shape)) {
      return false;
    }
    try {
      scaleBy(ones, scales);
      multiply(shape, x, rows, weight, out, factor, stream);
      return true;
    } catch (CudaException e) {
      if (e.sticky()) {
        throw e;
      }
      // Libraries before CUDA 12.9 have no such attribute, and GPUs other than Hopper no algorithm.
      unscalable.add(shape);
      return false;
    }
  }

  private void scaleBy(long ones, long scales) {
    long operation = operation(Kind.FP8_ROWS);
    number.set(JAVA_LONG, 0, ones);
    set(operation, "A_SCALE_POINTER", DESC_A_SCALE_POINTER, number);
    number.set(JAVA_LONG, 0, scales);
    set(operation, "B_SCALE_POINTER", DESC_B_SCALE_POINTER, number);
  }

  private static Shape shape(
      Kind kind, Rows x, long weight, int outputs, int inputs, Rows out, Output output) {
    int alignment = alignment(x.address() | weight | out.address());
    if (alignment < FP8_ALIGNMENT || (inputs | outputs) % FP8_ALIGNMENT != 0) {
      throw new IllegalArgumentException(
          "%d x %d numbers at multiples of %d bytes: FP8 products want multiples of %d"
              .formatted(outputs, inputs, alignment, FP8_ALIGNMENT));
    }
    return new Shape(kind, inputs, outputs, x.stride(), out.stride(), output, alignment);
  }

  private void multiply(
      Shape shape, Rows x, int rows, long weight, Rows out, float factor, Stream stream) {
    long operation = operation(shape.kind);
    alpha.set(JAVA_FLOAT, 0, factor);
    Plan plan = plans.computeIfAbsent(shape, this::plan);
    setRows(plan, rows);
    Product product =
        algorithm ->
            status(
                () ->
                    (int)
                        f.matmul.invokeExact(
                            handle,
                            operation,
                            alpha,
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
    MemorySegment algorithm = plan.algorithms.get(rows);
    if (algorithm == null) {
      algorithm = timer == null ? chosen(plan, rows) : fastest(plan, rows, product, timer, stream);
      plan.algorithms.put(rows, algorithm);
    }
    check(
        product.run(algorithm),
        () ->
            "cublasLtMatmul(%d rows, %s, weight 0x%x, x 0x%x, out 0x%x)"
                .formatted(rows, shape, weight, x.address(), out.address()));
  }

  /**
   * Chooses algorithms by time from here on, each when a shape first comes with a number of rows:
   * the library's first guess is often not its best. Later numbers of rows get what is best for the
   * next larger one that was timed, so that nothing is loaded any more while others wait: what runs
   * for the first time waits for all that was given to the GPU before.
   *
   * @param coolDown empties the GPU's cache, in the stream of the products: as it is when a model
   *     runs, whose weights are more than it holds
   */
  public void beginTiming(Runnable coolDown) {
    timer = coolDown;
  }

  public void endTiming() {
    timer = null;
  }

  private MemorySegment fastest(
      Plan plan, int rows, Product product, Runnable coolDown, Stream stream) {
    MemorySegment best = MemorySegment.NULL;
    float least = Float.MAX_VALUE;
    List<MemorySegment> candidates = candidates(plan, rows, CANDIDATES);
    try (Event start = Event.timing();
        Event end = Event.timing()) {
      for (MemorySegment candidate : candidates) {
        if (product.run(candidate) != 0) {
          continue;
        }
        for (int i = 0; i < REPEATS; i++) {
          coolDown.run();
          start.record(stream);
          int status = product.run(candidate);
          end.record(stream);
          end.synchronize();
          float took = start.millisTo(end);
          if (status == 0 && took < least) {
            least = took;
            best = candidate;
          }
        }
      }
    }
    if (best.equals(MemorySegment.NULL)) {
      best = candidates.getFirst(); // its failure will say why
    }
    plan.timed.put(rows, best);
    return best;
  }

  private MemorySegment chosen(Plan plan, int rows) {
    Map.Entry<Integer, MemorySegment> timed = plan.timed.ceilingEntry(rows);
    if (timed != null) {
      MemorySegment result = arena.allocate(HEURISTIC_BYTES, 8);
      long operation = operation(plan.shape.kind);
      int status =
          status(
              () ->
                  (int)
                      f.check.invokeExact(
                          handle,
                          operation,
                          plan.weight,
                          plan.x,
                          plan.out,
                          plan.out,
                          timed.getValue(),
                          result));
      if (status == 0 && result.get(JAVA_LONG, HEURISTIC_WORKSPACE) <= WORKSPACE_BYTES) {
        return timed.getValue();
      }
    }
    return candidates(plan, rows, 1).getFirst();
  }

  static int alignment(long addresses) {
    long bit = Long.lowestOneBit(addresses);
    return bit == 0 || bit > MOST_ALIGNMENT ? MOST_ALIGNMENT : (int) bit;
  }

  private Plan plan(Shape s) {
    int type = s.kind == Kind.BF16 ? R_16BF : R_8F_E4M3;
    return new Plan(
        s,
        layout(type, s.inputs, s.outputs, s.inputs),
        layout(type, s.inputs, 1, s.xStride),
        layout(s.output.type, s.outputs, 1, s.outStride),
        new HashMap<>(),
        new TreeMap<>());
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

  /** Those that the library thinks best, at least one. */
  private List<MemorySegment> candidates(Plan plan, int rows, int most) {
    long operation = operation(plan.shape.kind);
    MemorySegment found = arena.allocate(most * HEURISTIC_BYTES, 8);
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
                      most,
                      found,
                      count));
    } finally {
      call(
          "cublasLtMatmulPreferenceDestroy",
          () -> (int) f.preferenceDestroy.invokeExact(preference));
    }
    List<MemorySegment> usable = new ArrayList<>();
    for (int i = 0; i < count.get(JAVA_INT, 0); i++) {
      MemorySegment one = found.asSlice(i * HEURISTIC_BYTES, HEURISTIC_BYTES);
      if (one.get(JAVA_INT, HEURISTIC_STATE) == 0) {
        usable.add(one);
      }
    }
    if (usable.isEmpty()) {
      throw new CudaException(
          "%s knows no way to multiply %d rows of %s".formatted(name, rows, plan.shape));
    }
    return usable;
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

  private void check(int status, Supplier<String> what) {
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
    for (long operation : operations.values()) {
      call("cublasLtMatmulDescDestroy", () -> (int) f.descDestroy.invokeExact(operation));
    }
    operations.clear();
    call("cublasLtDestroy", () -> (int) f.destroy.invokeExact(handle));
  }
}
