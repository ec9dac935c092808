package dev.millrace.inference.backend.cuda;

import dev.millrace.inference.engine.Batch;
import dev.millrace.kernels.AttentionKernels;
import java.util.List;

/**
 * Keys and values widened to halves, block by block. Results are the same to the bit with it and
 * without, so the choice is one of time alone.
 *
 * <p>To widen a number of a key and one of a value moves six bytes, 1.7 ps at 3.5 TB/s. Each query
 * row that sees them has four operations for them, which take 3.0 fs less on halves (580 instead of
 * 403 TFLOP/s). Both are the same at 566 rows, whatever the heads. On an H200 it pays from some 480
 * rows on where a context is long (512: 218 instead of 386 us, tiles over FP8 being slower where
 * they are few), and from three times as many where a prompt is all there is to read (of 512 tokens
 * it takes 3 to 9 % longer, of 2,048 a fifth less).
 */
final class Widening extends BeforePrefill {
  /**
   * Query rows, counted as if each saw the whole context, from which on it is done for a long one.
   */
  static final int LEAST_ROWS = 480;

  private static final int BLOCK = AttentionKernels.BLOCK_TOKENS;

  // What was planned last: blocks of the cache.
  final AttentionPlan.Ints blocks = new AttentionPlan.Ints();

  Widening() {
    super(BLOCK, 0);
  }

  /**
   * Most bytes of memory that steps of a model can use.
   *
   * @param tokens most of a step
   * @param kvHeads of each layer
   */
  static long bytes(int tokens, int maxContext, int heads, List<Integer> kvHeads, int headDim) {
    long needed = 0;
    for (int n : kvHeads) {
      if (n > 0) {
        long sequences = (long) tokens * (heads / n) / LEAST_ROWS;
        long each = Math.ceilDiv(maxContext, BLOCK) * bytes((long) n * headDim * BLOCK);
        needed = Math.max(needed, atMost(sequences, each));
      }
    }
    return needed;
  }

  @Override
  boolean isFor(long queries, long context, int group) {
    // A query token sees what lies before it: of the chunk half, on average.
    return group * queries * (2 * context - queries) >= 2 * LEAST_ROWS * (context + 2 * queries);
  }

  @Override
  long unitBytes(CudaKvCache cache, int kvHeads) {
    return bytes(cache.blockNumbers(kvHeads));
  }

  /** Of the keys and the values of a block with so many numbers of each. */
  private static long bytes(long numbers) {
    return 2 * numbers * Short.BYTES;
  }

  @Override
  void clear() {
    blocks.count = 0;
  }

  @Override
  int count() {
    return blocks.count;
  }

  @Override
  void take(Batch batch, int sequence, int units) {
    for (int i = 0; i < units; i++) {
      blocks.add(batch.blockTable[sequence * batch.maxBlocks + i]);
    }
  }

  @Override
  AttentionKernels.Prepared send(
      StepBuffer buffer, long room, long sentFirst, AttentionKernels.Tiles tiles) {
    return new AttentionKernels.Widened(
        room,
        room + most() / 2,
        CudaStep.Attention.put(blocks, buffer),
        blocks.count,
        sentFirst,
        tiles);
  }
}
