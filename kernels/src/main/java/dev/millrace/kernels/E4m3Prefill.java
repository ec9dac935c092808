package dev.millrace.kernels;

import org.jspecify.annotations.Nullable;

/**
 * Launcher of {@code attention_e4m3_sm90.cu}, which has kernels on Hopper alone, for heads of 128
 * numbers. Loaded into the current context by whoever closes it.
 */
final class E4m3Prefill implements AutoCloseable {
  private static final int HEAD_DIM = 128;

  /** Positions of a tile of values. */
  static final int TILE_TOKENS = 128;

  /** Bytes of a tile of values of one KV head. */
  static final int TILE_BYTES = TILE_TOKENS * HEAD_DIM;

  private static final int THREADS = 3 * 128;
  private static final int TRANSPOSE_THREADS = 256;
  private static final int STAGES = 3;

  /** Ones behind a tile of values. */
  private static final int ONES_BYTES = 8 * TILE_TOKENS;

  private static final int WORK_BYTES = 2 * 32;
  private static final int GATES = 2 + 4 * STAGES;

  private final KernelModule module = KernelModule.load("attention_e4m3_sm90");
  private final KernelModule.@Nullable Kernel transpose =
      module.findOverlapping("transpose_values");
  private final KernelModule.@Nullable Kernel prefill = module.findOverlapping("prefill_e4m3_sm90");
  private final @Nullable TensorMaps maps;
  private final int multiprocessors;

  E4m3Prefill(int multiprocessors) {
    this.multiprocessors = multiprocessors;
    this.maps = prefill != null ? new TensorMaps(Driver.natives()) : null;
  }

  /** Whether this card has kernels for such heads. */
  boolean takes(int headDim) {
    return prefill != null && headDim == HEAD_DIM;
  }

  /** Transposes values and attends to them; only where {@link #takes}. */
  void launch(
      Rows q,
      Rows out,
      AttentionKernels.Layer layer,
      AttentionKernels.Sequences sequences,
      AttentionKernels.Transposed made,
      Stream stream) {
    if (transpose == null || prefill == null || maps == null || !takes(layer.headDim())) {
      throw new IllegalArgumentException("this card has no kernel in e4m3 for " + layer);
    }
    transpose.with(layer.keys()).with(layer.values()).with(made.values());
    transpose.with(sequences.contextLength()).with(sequences.blockTable());
    transpose.with(made.sequence()).with(made.tile()).with(sequences.maxBlocks());
    transpose.with(made.begun());
    transpose.launch(made.count(), layer.kvHeads(), TRANSPOSE_THREADS, 0, stream);

    AttentionKernels.Tiles tiles = made.tiles();
    prefill.with(maps.of(layer.keys(), HEAD_DIM, Byte.BYTES)).with(made.values());
    prefill.with(q.address()).with(out.address());
    AttentionKernels.sequences(prefill, sequences).with(made.first());
    prefill.with(tiles.sequence()).with(tiles.token()).with(made.begun()).with(tiles.count());
    AttentionKernels.shape(prefill, sequences, layer, q, out);
    int work = Math.multiplyExact(tiles.count(), layer.kvHeads());
    prefill.launch(Math.min(work, multiprocessors), 1, THREADS, shared(), stream);
  }

  /**
   * Bytes of shared memory: queries as they come and rounded, with a scale for each row; tiles of
   * keys and of values; what is computed; and gates.
   */
  static int shared() {
    int rows = AttentionKernels.TILE_ROWS;
    return rows * (HEAD_DIM * (Byte.BYTES + Short.BYTES) + Float.BYTES)
        + STAGES * (2 * TILE_BYTES + ONES_BYTES)
        + WORK_BYTES
        + GATES * Long.BYTES;
  }

  @Override
  public void close() {
    module.close();
  }
}
