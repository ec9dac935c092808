package dev.millrace.kernels;

/**
 * Launchers of {@code norm.cu}. Loaded into the current context by whoever closes it. Launches
 * return before the kernels ran; the stream orders them.
 */
public final class NormKernels implements AutoCloseable {
  private static final int THREADS = 256;

  private final KernelModule module = KernelModule.load("norm");
  private final KernelModule.Kernel rmsNorm = module.overlapping("rms_norm");
  private final KernelModule.Kernel addRmsNorm = module.overlapping("add_rms_norm");

  /**
   * out = x · weight / sqrt(mean(x²) + epsilon), row by row, computed in float.
   *
   * @param x bfloat16 [rows][dim], contiguous
   * @param weight float [dim]
   * @param out bfloat16 [rows][dim]; may be x
   */
  public void rmsNorm(
      long x, long weight, long out, int rows, int dim, float epsilon, Stream stream) {
    rmsNorm.with(x).with(weight).with(out).with(dim).with(epsilon).launch(rows, THREADS, stream);
  }

  /**
   * x += y, then out as {@link #rmsNorm} of x; the same values as the two steps apart.
   *
   * @param x bfloat16 [rows][dim]
   * @param y bfloat16 [rows][dim]
   * @param weight float [dim]
   * @param out bfloat16 [rows][dim]; not x
   */
  public void addRmsNorm(
      long x, long y, long weight, long out, int rows, int dim, float epsilon, Stream stream) {
    addRmsNorm
        .with(x)
        .with(y)
        .with(weight)
        .with(out)
        .with(dim)
        .with(epsilon)
        .launch(rows, THREADS, stream);
  }

  @Override
  public void close() {
    module.close();
  }
}
