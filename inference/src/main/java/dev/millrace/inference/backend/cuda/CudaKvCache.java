package dev.millrace.inference.backend.cuda;

import dev.millrace.inference.backend.KvCache;
import dev.millrace.inference.backend.KvFormat;
import dev.millrace.inference.backend.KvScale;
import dev.millrace.kernels.AttentionKernels;
import java.util.Arrays;
import java.util.List;

/** Keys and values of bfloat16 or e4m3; the kernels say how a block lies. */
final class CudaKvCache implements KvCache {
  /** Tokens of a block. */
  static final int BLOCK = AttentionKernels.BLOCK_TOKENS;

  private final GpuMemory memory;
  private final List<Integer> kvHeads;
  private final int headDim;
  private final int blocks;
  private final KvFormat format;
  private final List<KvScale> scales;
  private final long[] keys;
  private final long[] values;

  CudaKvCache(
      GpuMemory memory,
      List<Integer> kvHeads,
      int headDim,
      int blocks,
      KvFormat format,
      List<KvScale> scales) {
    this.memory = memory;
    this.kvHeads = List.copyOf(kvHeads);
    this.headDim = headDim;
    this.blocks = blocks;
    this.format = format;
    this.scales = List.copyOf(scales);
    this.keys = new long[kvHeads.size()];
    this.values = new long[kvHeads.size()];
    for (int layer = 0; layer < keys.length; layer++) {
      long bytes =
          Math.multiplyExact((long) kvHeads.get(layer) * headDim * bytes(format) * BLOCK, blocks);
      if (bytes > 0) {
        keys[layer] = memory.allocate(what(blocks), bytes);
        values[layer] = memory.allocate(what(blocks), bytes);
      }
    }
  }

  private static String what(int blocks) {
    return "the KV cache of " + blocks + " blocks, for the keys or values of one layer,";
  }

  /** Gives the memory back before the backend closes. */
  void free() {
    for (int layer = 0; layer < keys.length; layer++) {
      if (keys[layer] != 0) {
        memory.free(keys[layer]);
        memory.free(values[layer]);
      }
    }
  }

  /** Bytes that a block costs, keys and values of all layers. */
  static long blockBytes(List<Integer> kvHeads, int headDim, KvFormat format) {
    long heads = kvHeads.stream().mapToLong(Integer::longValue).sum();
    return 2 * heads * headDim * bytes(format) * BLOCK;
  }

  private static int bytes(KvFormat format) {
    return format == KvFormat.FP8 ? Byte.BYTES : Short.BYTES;
  }

  @Override
  public long tokenBytes() {
    return blockBytes(kvHeads, headDim, format) / BLOCK;
  }

  /** Where the first layer with attention keeps its keys; 0 if there is none. */
  long first() {
    return Arrays.stream(keys).filter(k -> k != 0).findFirst().orElse(0);
  }

  /** Bytes there. */
  long firstBytes() {
    int heads = kvHeads.stream().filter(n -> n > 0).findFirst().orElse(0);
    return (long) heads * headDim * bytes(format) * BLOCK * blocks;
  }

  /** Numbers of the keys of a block in a layer of so many KV heads. */
  long blockNumbers(int kvHeads) {
    return (long) kvHeads * headDim * BLOCK;
  }

  AttentionKernels.Layer layer(int layer, int heads) {
    KvScale scale = scales.get(layer);
    return new AttentionKernels.Layer(
        keys[layer],
        values[layer],
        heads,
        kvHeads.get(layer),
        headDim,
        format == KvFormat.FP8 ? new AttentionKernels.Scales(scale.keys(), scale.values()) : null);
  }

  @Override
  public int layers() {
    return kvHeads.size();
  }

  @Override
  public int kvHeads(int layer) {
    return kvHeads.get(layer);
  }

  @Override
  public int headDim() {
    return headDim;
  }

  @Override
  public int blockSize() {
    return BLOCK;
  }

  @Override
  public int blocks() {
    return blocks;
  }

  /** Bytes of a number of a key or value. */
  int numberBytes() {
    return bytes(format);
  }
}
