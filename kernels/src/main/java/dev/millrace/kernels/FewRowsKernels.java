package dev.millrace.kernels;

/**
 * Launchers of {@code few_rows.cu}: products of few rows, for which weights come at nearly the
 * speed of memory. Loaded into the current context by whoever closes it. Launches return before the
 * kernels ran; the stream orders them, but weights may be read while kernels before still run: who
 * makes weights by a kernel waits for it before the first product.
 *
 * <p>Measured on an H200 against cuBLASLt's best: more rows of e4m3 than {@link #MOST_FP8_ROWS}, or
 * of bfloat16 than {@link #MOST_ROWS}, the library multiplies faster.
 */
public final class FewRowsKernels implements AutoCloseable {
  /** Most rows of bfloat16. */
  public static final int MOST_ROWS = 8;

  /** Most rows of e4m3. */
  public static final int MOST_FP8_ROWS = 16;

  private static final int WARPS = 16;
  private static final int THREADS = WARPS * 32;
  private static final int PART = 16;

  private final KernelModule module = KernelModule.load("few_rows");
  private final Variant bf16 = new Variant(module.overlapping("few_bf16_8"), 1, 1, 8);
  private final Variant fp8 = new Variant(module.overlapping("few_e4m3_8"), 1, 2, 5);
  private final Variant moreFp8 = new Variant(module.overlapping("few_e4m3_16"), 2, 2, 4);
  private final int multiprocessors;

  /**
   * A kernel with its constants.
   *
   * @param tiles of 8 rows of x
   * @param units of 16 rows of the weight that a block multiplies at once
   * @param stages of the queue
   */
  private record Variant(KernelModule.Kernel kernel, int tiles, int units, int stages) {
    int sharedBytes() {
      return shared(tiles, units, stages);
    }
  }

  /**
   * Loads the kernels.
   *
   * @param multiprocessors of the GPU
   */
  public FewRowsKernels(int multiprocessors) {
    this.multiprocessors = multiprocessors;
  }

  /** Bytes of shared memory: the queue of weight and x, then the warps' sums. */
  static int shared(int tiles, int units, int stages) {
    int sums = WARPS * tiles * 8 * (16 + 4) * Float.BYTES;
    return stages * (2 * units + tiles) * PART * THREADS + sums;
  }

  /** Bytes of shared memory that a GPU has to give a block, so that the kernels run there. */
  public static int sharedBytes() {
    return Math.max(shared(1, 1, 8), Math.max(shared(1, 2, 5), shared(2, 2, 4)));
  }

  /**
   * Whether there is a kernel for such a product.
   *
   * @param bytes of a number
   */
  public static boolean takes(Rows x, int rows, long weight, int inputs, int bytes) {
    return rows <= (bytes == 1 ? MOST_FP8_ROWS : MOST_ROWS)
        && (x.address() | weight | (long) x.stride() * bytes | (long) inputs * bytes) % PART == 0;
  }

  /**
   * out = x · weightᵀ, summed in float.
   *
   * @param x bfloat16 [rows][inputs]; as {@link #takes} wants it, here and below
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
      CublasLt.Output output,
      Stream stream) {
    launch(bf16, x, rows, weight, outputs, inputs, out, output, 1, 0, stream);
  }

  /**
   * out = factor · scales · x · weightᵀ of e4m3, summed in float.
   *
   * @param x e4m3 [rows][inputs]; its stride counts such
   * @param weight e4m3 [outputs][inputs], contiguous
   * @param scales float [rows] on the device; 0: each is 1
   */
  public void multiplyFp8(
      Rows x,
      int rows,
      long weight,
      int outputs,
      int inputs,
      Rows out,
      CublasLt.Output output,
      float factor,
      long scales,
      Stream stream) {
    Variant variant = rows <= 8 ? fp8 : moreFp8;
    launch(variant, x, rows, weight, outputs, inputs, out, output, factor, scales, stream);
  }

  private void launch(
      Variant variant,
      Rows x,
      int rows,
      long weight,
      int outputs,
      int inputs,
      Rows out,
      CublasLt.Output output,
      float factor,
      long scales,
      Stream stream) {
    KernelModule.Kernel kernel = variant.kernel;
    kernel.with(weight).with(x.address()).with(out.address()).with(scales).with(factor);
    kernel.with(outputs).with(inputs).with(rows).with(x.stride()).with(out.stride());
    kernel.with(output == CublasLt.Output.F32 ? 1 : 0);
    int blocks = Math.min(multiprocessors, Math.ceilDiv(outputs, 16 * variant.units));
    kernel.launch(blocks, 1, THREADS, variant.sharedBytes(), stream);
  }

  @Override
  public void close() {
    module.close();
  }
}
