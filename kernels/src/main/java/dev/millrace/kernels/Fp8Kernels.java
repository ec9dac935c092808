package dev.millrace.kernels;

/**
 * Launchers of {@code fp8.cu}: rows of activations in e4m3, and FP8 weights from and to other
 * formats. Loaded into the current context by whoever closes it. Launches return before the kernels
 * ran; the stream orders them.
 *
 * <p>A row is divided by {@code fixed} before it is rounded; where that is 0, by the scale that its
 * largest number needs, which goes to {@code scales}, float [rows]. Rows of {@code out} are
 * contiguous. Widths are multiples of 8, and rows begin at multiples of 16 bytes.
 *
 * <p>{@code factors}, float [rows], are what a product of FP8 left to multiply its rows by; 0 where
 * it left nothing. They may be where {@code scales} go.
 */
public final class Fp8Kernels implements AutoCloseable {
  private static final int VECTOR = 8;
  private static final int KEPT = 4;
  private static final int WARP = 32;
  private static final int FEW_ROWS = 256;
  private static final int LEAST_THREADS = 128;
  private static final int MOST_THREADS = 1024;
  private static final int THREADS = 256;

  /** Most that the driver takes in the second dimension. */
  private static final int MOST_BLOCKS = 65_535;

  private final KernelModule module = KernelModule.load("fp8");
  private final KernelModule.Kernel round = module.overlapping("round_rows");
  private final KernelModule.Kernel rmsNorm = module.overlapping("rms_norm_rounded");
  private final KernelModule.Kernel addRmsNorm = module.overlapping("add_rms_norm_rounded");
  private final KernelModule.Kernel siluMul = module.overlapping("silu_mul_rounded");
  private final KernelModule.Kernel scale = module.overlapping("scale_rows");
  private final KernelModule.Kernel widen = module.kernel("widen_e4m3");
  private final KernelModule.Kernel random = module.kernel("random_e4m3");

  /**
   * Where rounded rows go.
   *
   * @param address e4m3 [rows][width]
   * @param scales float [rows], unused where the scale is fixed
   * @param fixed the scale of all rows; 0: each has its own
   */
  public record Rounded(long address, long scales, float fixed) {}

  /** out = x. */
  public void round(Rows x, Rounded out, int rows, int width, Stream stream) {
    check(x.aligned(width), width);
    round.with(x.address()).with(out.address).with(out.scales).with(width).with(x.stride());
    round.with(out.fixed).launch(rows, threads(rows, width), stream);
  }

  /**
   * out = x · weight / sqrt(mean(x²) + epsilon), row by row, computed in float.
   *
   * @param x bfloat16 [rows][width], contiguous
   * @param weight float [width]
   */
  public void rmsNorm(
      long x, long weight, Rounded out, int rows, int width, float epsilon, Stream stream) {
    check(new Rows(x, width).aligned(width), width);
    rmsNorm.with(x).with(weight).with(out.address).with(out.scales).with(width).with(epsilon);
    rmsNorm.with(out.fixed).launch(rows, normThreads(rows, width), stream);
  }

  /**
   * x += y · factors, then out as {@link #rmsNorm} of x.
   *
   * @param y bfloat16 [rows][width], contiguous
   */
  public void addRmsNorm(
      long x,
      long y,
      long factors,
      long weight,
      Rounded out,
      int rows,
      int width,
      float epsilon,
      Stream stream) {
    check(new Rows(x | y, width).aligned(width), width);
    addRmsNorm.with(x).with(y).with(factors).with(weight).with(out.address).with(out.scales);
    addRmsNorm.with(width).with(epsilon).with(out.fixed);
    addRmsNorm.launch(rows, normThreads(rows, width), stream);
  }

  /** out = silu(gate · factors) · up · factors. */
  public void siluMul(
      Rows gate, Rows up, long factors, Rounded out, int rows, int width, Stream stream) {
    check(gate.aligned(width) && up.aligned(width), width);
    siluMul.with(gate.address()).with(up.address()).with(factors).with(out.address);
    siluMul.with(out.scales).with(width).with(gate.stride()).with(up.stride()).with(out.fixed);
    siluMul.launch(rows, threads(rows, width), stream);
  }

  /**
   * x[row] = x[row] · scales[row].
   *
   * @param scales float [rows]
   */
  public void scaleRows(Rows x, long scales, int rows, int width, Stream stream) {
    check(x.aligned(width), width);
    scale.with(x.address()).with(scales).with(rows).with(width).with(x.stride());
    scale.launch(ActivationKernels.blocks(width), Math.min(rows, MOST_BLOCKS), THREADS, 0, stream);
  }

  /** e4m3 to bfloat16, times a scale. */
  public void widen(long in, long out, long count, float by, Stream stream) {
    widen.with(in).with(out).with(count).with(by);
    widen.launch(ConvertKernels.blocks(count), THREADS, stream);
  }

  /** Fills with e4m3 numbers in [-448, 448] that the seed determines. */
  public void random(long out, long count, long seed, Stream stream) {
    random.with(out).with(count).with(seed);
    random.launch(ConvertKernels.blocks(count), THREADS, stream);
  }

  /**
   * As many as keep a row in registers; for few rows more, because it counts when the last is done.
   */
  static int threads(int rows, int width) {
    int vectors = Math.ceilDiv(width, VECTOR);
    int each = rows <= FEW_ROWS ? Math.ceilDiv(vectors, MOST_THREADS) : KEPT;
    int wanted = Math.ceilDiv(Math.ceilDiv(vectors, each), WARP) * WARP;
    return Math.clamp(wanted, LEAST_THREADS, MOST_THREADS);
  }

  /** Of norms: the order in which they add up rows of more vectors than threads depends on it. */
  static int normThreads(int rows, int width) {
    return width > VECTOR * MOST_THREADS ? MOST_THREADS : threads(rows, width);
  }

  private static void check(boolean aligned, int width) {
    if (!aligned || width % VECTOR != 0) {
      throw new IllegalArgumentException("rows of " + width + " numbers that are not aligned");
    }
  }

  @Override
  public void close() {
    module.close();
  }
}
