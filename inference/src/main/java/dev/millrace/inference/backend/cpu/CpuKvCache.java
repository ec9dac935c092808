package dev.millrace.inference.backend.cpu;

import dev.millrace.inference.backend.KvCache;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.List;

/**
 * float32 keys and values outside the heap. A block of keys is [kvHead][dimension][token], so that
 * the scores of a block's tokens advance side by side; a block of values is
 * [kvHead][token][dimension].
 */
final class CpuKvCache implements KvCache {
  /** Tokens of a block. */
  static final int BLOCK = 16;

  private final List<Integer> kvHeads;
  private final int headDim;
  private final int blocks;
  private final MemorySegment[] keys;
  private final MemorySegment[] values;

  CpuKvCache(Arena arena, List<Integer> kvHeads, int headDim, int blocks) {
    this.kvHeads = List.copyOf(kvHeads);
    this.headDim = headDim;
    this.blocks = blocks;
    this.keys = new MemorySegment[kvHeads.size()];
    this.values = new MemorySegment[kvHeads.size()];
    try {
      for (int layer = 0; layer < kvHeads.size(); layer++) {
        long bytes = Math.multiplyExact(blockBytes(layer), blocks);
        keys[layer] = arena.allocate(bytes, 64);
        values[layer] = arena.allocate(bytes, 64);
      }
    } catch (OutOfMemoryError e) {
      throw new IllegalStateException(
          "%d KV blocks need %d MB outside the heap, which Java may not reserve: use fewer blocks or raise -XX:MaxDirectMemorySize (by default as much as -Xmx)"
              .formatted(blocks, 2 * tokenBytes(kvHeads, headDim) * BLOCK * blocks >> 20),
          e);
    }
  }

  /** Bytes of keys, and as many of values, that a token costs over all layers. */
  static long tokenBytes(List<Integer> kvHeads, int headDim) {
    return kvHeads.stream().mapToLong(n -> (long) n * headDim * Float.BYTES).sum();
  }

  MemorySegment keys(int layer) {
    return keys[layer];
  }

  MemorySegment values(int layer) {
    return values[layer];
  }

  /** Byte offset of a head's part of a block, in keys and in values alike. */
  long at(int layer, int block, int kvHead) {
    return block * blockBytes(layer) + (long) kvHead * BLOCK * headDim * Float.BYTES;
  }

  private long blockBytes(int layer) {
    return (long) kvHeads.get(layer) * BLOCK * headDim * Float.BYTES;
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

  @Override
  public long tokenBytes() {
    return 2 * tokenBytes(kvHeads, headDim);
  }
}
