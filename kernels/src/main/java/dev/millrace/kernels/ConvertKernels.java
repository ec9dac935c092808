package dev.millrace.kernels;

/**
 * Launchers of {@code convert.cu}. Loaded into the current context by whoever closes it. Launches
 * return before the kernels ran; the stream orders them.
 */
public final class ConvertKernels implements AutoCloseable {
  private static final int THREADS = 256;

  /** Enough to fill any GPU of today; a block takes more than one stretch of a larger tensor. */
  private static final int MAX_BLOCKS = 4096;

  private final KernelModule module = KernelModule.load("convert");
  private final KernelModule.Kernel fromFloat = module.kernel("f32_to_bf16");
  private final KernelModule.Kernel fromHalf = module.kernel("f16_to_bf16");
  private final KernelModule.Kernel random = module.kernel("random_bf16");

  /** float to bfloat16. */
  public void fromFloat(long in, long out, long count, Stream stream) {
    launch(fromFloat, in, out, count, stream);
  }

  /** IEEE half to bfloat16. */
  public void fromHalf(long in, long out, long count, Stream stream) {
    launch(fromHalf, in, out, count, stream);
  }

  /** Fills with bfloat16 numbers in [-spread, spread) that the seed determines. */
  public void random(long out, long count, long seed, float spread, Stream stream) {
    random.with(out).with(count).with(seed).with(spread).launch(blocks(count), THREADS, stream);
  }

  private static void launch(
      KernelModule.Kernel kernel, long in, long out, long count, Stream stream) {
    kernel.with(in).with(out).with(count).launch(blocks(count), THREADS, stream);
  }

  static int blocks(long count) {
    return (int) Math.clamp(Math.ceilDiv(count, THREADS), 1, MAX_BLOCKS);
  }

  @Override
  public void close() {
    module.close();
  }
}
