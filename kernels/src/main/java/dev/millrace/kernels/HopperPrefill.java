package dev.millrace.kernels;

import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * Launcher of {@code attention_sm90.cu}, which has kernels on Hopper alone, and for some heads
 * alone: others take the prefill of {@code attention.cu} and {@code attention_fp8.cu}. Loaded into
 * the current context by whoever closes it.
 */
final class HopperPrefill implements AutoCloseable {
  private static final List<Integer> HEAD_DIMS = List.of(64, 128);

  private static final int WARPGROUP = 128;
  private static final int WARPGROUPS = 3;
  private static final int STAGES = 2;
  private static final int KEYS = 128;
  private static final int BARRIER_BYTES = Long.BYTES;

  private final KernelModule module = KernelModule.load("attention_sm90");
  private final Map<Integer, KernelModule.Kernel> bf16 = new HashMap<>();
  private final Map<Integer, KernelModule.Kernel> fp8 = new HashMap<>();
  private final Map<Integer, KernelModule.Kernel> widened = new HashMap<>();
  private final @Nullable TensorMaps maps;

  HopperPrefill() {
    for (int headDim : HEAD_DIMS) {
      KernelModule.Kernel kernel = module.find("prefill_sm90_" + headDim);
      if (kernel != null) {
        bf16.put(headDim, kernel);
        fp8.put(headDim, module.kernel("prefill_fp8_sm90_" + headDim));
        widened.put(headDim, module.overlapping("prefill_widened_sm90_" + headDim));
      }
    }
    this.maps = bf16.isEmpty() ? null : new TensorMaps(Driver.natives());
  }

  /** Launches it; false where this card has no kernel for such heads. */
  boolean launch(
      Rows q,
      Rows out,
      AttentionKernels.Layer layer,
      AttentionKernels.Sequences sequences,
      AttentionKernels.Tiles tiles,
      Stream stream) {
    AttentionKernels.Scales scales = layer.fp8();
    KernelModule.Kernel kernel = (scales == null ? bf16 : fp8).get(layer.headDim());
    if (kernel == null || maps == null) {
      return false;
    }
    if (scales == null) {
      kernel.with(maps.of(layer.keys(), layer.headDim(), Short.BYTES));
      kernel.with(maps.of(layer.values(), layer.headDim(), Short.BYTES));
    } else {
      kernel.with(layer.keys()).with(layer.values());
    }
    launch(kernel, q, out, layer, sequences, tiles, stream);
    return true;
  }

  private static void launch(
      KernelModule.Kernel kernel,
      Rows q,
      Rows out,
      AttentionKernels.Layer layer,
      AttentionKernels.Sequences sequences,
      AttentionKernels.Tiles tiles,
      Stream stream) {
    kernel.with(q.address()).with(out.address());
    AttentionKernels.sequences(kernel, sequences).with(tiles.sequence()).with(tiles.token());
    AttentionKernels.shape(kernel, sequences, layer, q, out);
    kernel.launch(
        Math.multiplyExact(tiles.count(), layer.kvHeads()),
        1,
        WARPGROUPS * WARPGROUP,
        shared(layer.headDim()),
        stream);
  }

  boolean widens(int headDim) {
    return widened.containsKey(headDim);
  }

  /** Launches it over blocks that were widened before; only where {@link #widens}. */
  void launchWidened(
      Rows q,
      Rows out,
      AttentionKernels.Layer layer,
      AttentionKernels.Sequences sequences,
      AttentionKernels.Widened wide,
      Stream stream) {
    KernelModule.Kernel kernel = widened.get(layer.headDim());
    if (kernel == null || maps == null || layer.fp8() == null) {
      throw new IllegalArgumentException("this card has no kernel for widened " + layer);
    }
    kernel.with(maps.of(wide.keys(), layer.headDim(), Short.BYTES));
    kernel.with(maps.of(wide.values(), layer.headDim(), Short.BYTES));
    AttentionKernels.Sequences placed =
        new AttentionKernels.Sequences(
            sequences.queryStart(), sequences.contextLength(), wide.first(), 1);
    launch(kernel, q, out, layer, placed, wide.tiles(), stream);
  }

  /** Bytes of shared memory: queries, tiles of keys and of values, and their barriers. */
  static int shared(int headDim) {
    int rows = AttentionKernels.TILE_ROWS + STAGES * 2 * KEYS;
    return rows * headDim * Short.BYTES + (4 * STAGES + 1) * BARRIER_BYTES;
  }

  @Override
  public void close() {
    module.close();
  }
}
