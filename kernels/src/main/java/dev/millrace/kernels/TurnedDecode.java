package dev.millrace.kernels;

import java.util.HashMap;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * Launcher of the kernels of {@code decode_turned.cuh}: decodes that turn queries and keys, store
 * keys and values, and round what they attended. Of modules that others own.
 */
final class TurnedDecode {
  private final Map<String, KernelModule.Kernel> kernels = new HashMap<>();

  TurnedDecode(KernelModule bf16, KernelModule fp8) {
    for (int headDim : AttentionKernels.HEAD_DIMS) {
      for (String heads : new String[] {"", "_16"}) {
        add(bf16, "turned_" + headDim + heads);
        add(fp8, "turned_fp8_" + headDim + heads);
      }
    }
  }

  private void add(KernelModule module, String name) {
    kernels.put(name, module.overlapping(name));
  }

  /** See {@link AttentionKernels#turnAndDecode}. */
  void launch(
      AttentionKernels.Unturned from,
      Rows out,
      AttentionKernels.@Nullable RoundedByLast to,
      AttentionKernels.Layer layer,
      AttentionKernels.Sequences sequences,
      AttentionKernels.Items items,
      AttentionKernels.DecodeLaunch launch,
      Stream stream) {
    AttentionKernels.Scales scales = layer.fp8();
    String heads = layer.group() <= AttentionKernels.FEW_HEADS ? "" : "_16";
    KernelModule.Kernel kernel =
        kernels.get((scales == null ? "turned_" : "turned_fp8_") + layer.headDim() + heads);
    if (kernel == null) {
      throw new IllegalArgumentException("no kernel for " + layer);
    }
    Rows q = from.q();
    kernel.with(q.address()).with(from.k().address()).with(from.v()).with(from.factors());
    kernel.with(from.cos()).with(from.sin()).with(from.slots());
    kernel.with(layer.keys()).with(layer.values()).with(out.address());
    kernel.with(to == null ? 0L : to.rows().address()).with(to == null ? 0L : to.rows().scales());
    kernel.with(to == null ? 0L : to.counts());
    AttentionKernels.sequences(kernel, sequences);
    kernel.with(items.sequence()).with(items.from()).with(items.to());
    kernel.with(sequences.maxBlocks()).with(layer.kvHeads()).with(layer.group());
    kernel.with(q.stride()).with(out.stride()).with(from.k().stride()).with(layer.scale());
    kernel.with(scales == null ? 1 : scales.values());
    kernel.with(scales == null ? 1 : 1 / scales.keys());
    kernel.with(scales == null ? 1 : 1 / scales.values());
    kernel.with(to == null ? 0f : to.rows().fixed()).with(launch.stages());
    kernel.launch(items.count(), layer.kvHeads(), launch.threads(), launch.sharedBytes(), stream);
  }
}
