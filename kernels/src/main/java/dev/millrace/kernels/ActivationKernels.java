package dev.millrace.kernels;

/**
 * Launchers of {@code activation.cu}: what is done to rows element by element. Loaded into the
 * current context by whoever closes it. Launches return before the kernels ran; the stream orders
 * them.
 */
public final class ActivationKernels implements AutoCloseable {
  private static final int THREADS = 256;
  private static final int VECTOR = 8;

  /** Most rows of blocks that the driver takes; a block takes several rows of a larger matrix. */
  private static final int MOST_ROWS = 65_535;

  private final KernelModule module = KernelModule.load("activation");
  private final KernelModule.Kernel siluMul = module.overlapping("silu_mul");
  private final KernelModule.Kernel add = module.overlapping("add");
  private final KernelModule.Kernel addBias = module.overlapping("add_bias");
  private final KernelModule.Kernel gather = module.overlapping("gather_rows");

  /** out = silu(gate) · up, computed in float; out may be gate or up. */
  public void siluMul(Rows gate, Rows up, Rows out, int rows, int width, Stream stream) {
    siluMul
        .with(gate.address())
        .with(up.address())
        .with(out.address())
        .with(rows)
        .with(width)
        .with(gate.stride())
        .with(up.stride())
        .with(out.stride())
        .with(gate.aligned(width) && up.aligned(width) && out.aligned(width) ? 1 : 0);
    launch(siluMul, rows, width, stream);
  }

  /**
   * x += y.
   *
   * @param x bfloat16 [rows][width], contiguous
   * @param y likewise
   */
  public void add(long x, long y, int rows, int width, Stream stream) {
    add.with(x).with(y).with(rows).with(width).with(aligned(x, y, width));
    launch(add, rows, width, stream);
  }

  /**
   * Adds a bias to each row.
   *
   * @param bias float [width]
   */
  public void addBias(Rows x, long bias, int rows, int width, Stream stream) {
    addBias.with(x.address()).with(bias).with(rows).with(width).with(x.stride());
    launch(addBias, rows, width, stream);
  }

  /**
   * out[i] = x[from[i]].
   *
   * @param x bfloat16 [any][width], contiguous
   * @param from int [rows]
   * @param out bfloat16 [rows][width]
   */
  public void gatherRows(long x, long from, long out, int rows, int width, Stream stream) {
    gather.with(x).with(from).with(out).with(rows).with(width).with(aligned(x, out, width));
    launch(gather, rows, width, stream);
  }

  static int aligned(long a, long b, int width) {
    return new Rows(a, width).aligned(width) && new Rows(b, width).aligned(width) ? 1 : 0;
  }

  private static void launch(KernelModule.Kernel kernel, int rows, int width, Stream stream) {
    kernel.launch(blocks(width), Math.min(rows, MOST_ROWS), THREADS, 0, stream);
  }

  /** Blocks of threads that cover a row, a vector each. */
  static int blocks(int width) {
    return Math.ceilDiv(width, VECTOR * THREADS);
  }

  @Override
  public void close() {
    module.close();
  }
}
