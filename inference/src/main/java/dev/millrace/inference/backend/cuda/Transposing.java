package dev.millrace.inference.backend.cuda;

import dev.millrace.inference.engine.Batch;
import dev.millrace.kernels.AttentionKernels;
import java.util.List;

/**
 * Values transposed, tile by tile, for tiles of query tokens that are multiplied in e4m3. But for
 * steps of so few query tokens that microseconds decide, that is the fastest way (half of the
 * traffic of {@link Widening} for the values, none for the keys), and another result: so all
 * sequences with two query tokens or more take it, as long as there is room for a step's.
 */
final class Transposing extends BeforePrefill {
  private static final int TILE = AttentionKernels.Transposed.TOKENS;

  /** Before the values: how much of the work has begun. */
  private static final int BEGUN_BYTES = 256;

  // What was planned last: of which sequence a tile of values is, and its index there.
  final AttentionPlan.Ints sequences = new AttentionPlan.Ints();
  final AttentionPlan.Ints tiles = new AttentionPlan.Ints();

  Transposing() {
    super(TILE, BEGUN_BYTES);
  }

  /**
   * Most bytes of memory that steps of a model can use, whose heads have as many numbers as {@link
   * AttentionKernels#attendsInE4m3} takes.
   *
   * @param tokens most of a step
   * @param kvHeads of each layer
   */
  static long bytes(int tokens, int maxContext, List<Integer> kvHeads) {
    int heads = kvHeads.stream().mapToInt(Integer::intValue).max().orElse(0);
    long each =
        (long) Math.ceilDiv(maxContext, TILE) * heads * AttentionKernels.Transposed.tileBytes();
    return heads == 0 ? 0 : atMost(tokens / 2, each);
  }

  @Override
  boolean isFor(long queries, long context, int group) {
    return queries > 1; // one query token has items of a decode
  }

  @Override
  long unitBytes(CudaKvCache cache, int kvHeads) {
    return (long) kvHeads * AttentionKernels.Transposed.tileBytes();
  }

  @Override
  void clear() {
    sequences.count = 0;
    tiles.count = 0;
  }

  @Override
  int count() {
    return tiles.count;
  }

  @Override
  void take(Batch batch, int sequence, int units) {
    for (int i = 0; i < units; i++) {
      sequences.add(sequence);
      tiles.add(i);
    }
  }

  @Override
  AttentionKernels.Prepared send(
      StepBuffer buffer, long room, long sentFirst, AttentionKernels.Tiles queries) {
    return new AttentionKernels.Transposed(
        room + BEGUN_BYTES,
        room,
        CudaStep.Attention.put(sequences, buffer),
        CudaStep.Attention.put(tiles, buffer),
        tiles.count,
        sentFirst,
        queries);
  }
}
