package dev.millrace.inference.backend.cuda;

import dev.millrace.inference.engine.Batch;
import dev.millrace.kernels.AttentionKernels;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * Which sequences of a step have the FP8 keys and values that they read widened to halves, once a
 * layer, before its prefill. Results are the same to the bit either way, so the choice is one of
 * time alone. Part of a {@link CudaBackend}.
 *
 * <p>To widen a number of a key and one of a value moves six bytes, 1.7 ps at 3.5 TB/s. Each query
 * row that sees them has four operations for them, which take 3.0 fs less on halves (580 instead of
 * 403 TFLOP/s). Both are the same at 566 rows, whatever the heads. On an H200 it pays from some 480
 * rows on where a context is long (512: 218 instead of 386 us, tiles over FP8 being slower where
 * they are few), and from three times as many where a prompt is all there is to read (of 512 tokens
 * it takes 3 to 9 % longer, of 2,048 a fifth less).
 */
final class Widening {
  /**
   * Query rows, counted as if each saw the whole context, from which on it is done for a long one.
   */
  static final int LEAST_ROWS = 480;

  /** Most memory for it. Sequences that do not fit are computed from the cache as it is. */
  static final long MOST_BYTES = 256L << 20;

  private static final int BLOCK = AttentionKernels.BLOCK_TOKENS;
  private static final int NONE = -1;

  // What was planned last: blocks of the cache, where a sequence's begin among them, and the tiles
  // of sequences that read them.
  final AttentionPlan.Ints blocks = new AttentionPlan.Ints();
  final AttentionPlan.Ints first = new AttentionPlan.Ints();
  final AttentionPlan.Ints tileSequence = new AttentionPlan.Ints();
  final AttentionPlan.Ints tileToken = new AttentionPlan.Ints();

  private long most = MOST_BYTES;

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
        long each = Math.ceilDiv(maxContext, BLOCK) * 2 * bytes((long) n * headDim * BLOCK);
        needed = Math.max(needed, Math.min(sequences, MOST_BYTES / each + 1) * each);
      }
    }
    return Math.min(MOST_BYTES, needed);
  }

  /** Plans for no more memory than this from here on. */
  void limit(long bytes) {
    most = bytes;
  }

  /** Bytes of memory that it takes. */
  long most() {
    return most;
  }

  /** Whether it takes less time than it saves. */
  static boolean pays(long queries, long context, int group) {
    // A query token sees what lies before it: of the chunk half, on average.
    return group * queries * (2 * context - queries) >= 2 * LEAST_ROWS * (context + 2 * queries);
  }

  /**
   * Takes tiles out of a plan: those of sequences that are to be widened.
   *
   * @param group query heads that share a KV head
   * @param blockNumbers in the keys of one block; 0: nothing is widened
   */
  void plan(Batch batch, AttentionPlan plan, int group, long blockNumbers) {
    blocks.count = 0;
    first.count = 0;
    tileSequence.count = 0;
    tileToken.count = 0;
    if (blockNumbers == 0 || plan.tileSequence.count == 0) {
      return;
    }
    long fits = most / 2 / bytes(blockNumbers);
    for (int s = 0; s < batch.sequences; s++) {
      int context = batch.contextLength[s];
      int count = Math.ceilDiv(context, BLOCK);
      boolean widened =
          pays(batch.queryStart[s + 1] - batch.queryStart[s], context, group)
              && blocks.count + count <= fits;
      first.add(widened ? blocks.count : NONE);
      for (int i = 0; widened && i < count; i++) {
        blocks.add(batch.blockTable[s * batch.maxBlocks + i]);
      }
    }
    if (blocks.count > 0) {
      takeTiles(plan);
    }
  }

  private void takeTiles(AttentionPlan plan) {
    int kept = 0;
    for (int i = 0; i < plan.tileSequence.count; i++) {
      int sequence = plan.tileSequence.get(i);
      int token = plan.tileToken.get(i);
      if (first.get(sequence) == NONE) {
        plan.tileSequence.values[kept] = sequence;
        plan.tileToken.values[kept++] = token;
      } else {
        tileSequence.add(sequence);
        tileToken.add(token);
      }
    }
    plan.tileSequence.count = kept;
    plan.tileToken.count = kept;
  }

  /**
   * Puts what was planned last into a step's buffer; null where nothing is widened.
   *
   * @param room for what is widened
   */
  AttentionKernels.@Nullable Widened send(StepBuffer buffer, Scratch room) {
    if (blocks.count == 0) {
      return null;
    }
    long keys = room.of(most);
    return new AttentionKernels.Widened(
        keys,
        keys + most / 2,
        CudaStep.Attention.put(blocks, buffer),
        blocks.count,
        CudaStep.Attention.put(first, buffer),
        new AttentionKernels.Tiles(
            CudaStep.Attention.put(tileSequence, buffer),
            CudaStep.Attention.put(tileToken, buffer),
            tileSequence.count));
  }

  private static long bytes(long numbers) {
    return numbers * Short.BYTES;
  }
}
