package dev.millrace.kernels;

import org.jspecify.annotations.Nullable;

/**
 * The kernel of {@code decode_sm90.cu}, which Hopper alone has, for heads of 128 numbers of e4m3,
 * up to eight query heads a KV head: others take the decode of {@code attention.cu} and {@code
 * attention_fp8.cu}, which takes one argument more. Loaded into the current context by whoever
 * closes it.
 */
final class HopperDecode implements AutoCloseable {
  private static final int HEAD_DIM = 128;
  private static final int STAGES = 3;

  /** Bytes of shared memory of a block: a pipeline of keys and values for each warp. */
  static final int SHARED =
      AttentionKernels.DECODE_WARPS * STAGES * 2 * AttentionKernels.BLOCK_TOKENS * HEAD_DIM;

  private final KernelModule module = KernelModule.load("decode_sm90");
  private final KernelModule.@Nullable Kernel kernel =
      module.findOverlapping("decode_fp8_sm90_128");

  /** The kernel for a layer; null where this card has none. */
  KernelModule.@Nullable Kernel of(AttentionKernels.Layer layer) {
    boolean takes =
        layer.fp8() != null
            && layer.headDim() == HEAD_DIM
            && layer.group() <= AttentionKernels.FEW_HEADS;
    return takes ? kernel : null;
  }

  @Override
  public void close() {
    module.close();
  }
}
