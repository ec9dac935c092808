package dev.millrace.inference.backend.cuda;

import dev.millrace.inference.engine.Batch;
import dev.millrace.kernels.AttentionKernels;
import org.jspecify.annotations.Nullable;

/**
 * Which sequences of a step have something made of what they read of an FP8 cache, once a layer,
 * before its prefill. It is made in units of positions; sequences for which there is no room are
 * computed from the cache as it is. Part of a {@link CudaAttention}.
 */
abstract sealed class BeforePrefill permits Transposing, Widening {
  /** Most memory for it. */
  static final long MOST_BYTES = 256L << 20;

  private static final int NONE = -1;

  // What was planned last: where a sequence's units begin among all, and the tiles of query tokens
  // that read them.
  final AttentionPlan.Ints first = new AttentionPlan.Ints();
  final AttentionPlan.Ints tileSequence = new AttentionPlan.Ints();
  final AttentionPlan.Ints tileToken = new AttentionPlan.Ints();

  private final int unitTokens;
  private final int extraBytes;
  private long most = MOST_BYTES;

  /**
   * @param unitTokens positions of a unit
   * @param extraBytes of memory beside the units
   */
  BeforePrefill(int unitTokens, int extraBytes) {
    this.unitTokens = unitTokens;
    this.extraBytes = extraBytes;
  }

  /** Most bytes of memory, for so many sequences of so many bytes each at the most. */
  static long atMost(long sequences, long each) {
    return Math.min(MOST_BYTES, Math.min(sequences, MOST_BYTES / each + 1) * each);
  }

  /** Plans for units of no more memory than this from here on. */
  final void limit(long bytes) {
    most = bytes;
  }

  /** Bytes of memory for units. */
  final long most() {
    return most;
  }

  /** Where there is room for all of it, which is taken if it was not before. */
  final long placeIn(Scratch room) {
    return room.of(most + extraBytes);
  }

  /** Whether it is done for a sequence with so many query tokens that see so much context. */
  abstract boolean isFor(long queries, long context, int group);

  /** Bytes of a unit. */
  abstract long unitBytes(CudaKvCache cache, int kvHeads);

  /** Forgets the units that were taken. */
  abstract void clear();

  /** Units that were taken. */
  abstract int count();

  /** Takes so many units of a sequence, from its first position on. */
  abstract void take(Batch batch, int sequence, int units);

  /**
   * Takes tiles out of a plan: those of sequences that something is made for.
   *
   * @param group query heads that share a KV head
   * @param unitBytes as {@link #unitBytes} says
   */
  final void plan(Batch batch, AttentionPlan plan, int group, long unitBytes) {
    clear();
    first.count = 0;
    tileSequence.count = 0;
    tileToken.count = 0;
    if (plan.tileSequence.count == 0) {
      return;
    }
    long fits = most / unitBytes;
    for (int s = 0; s < batch.sequences; s++) {
      int context = batch.contextLength[s];
      int units = Math.ceilDiv(context, unitTokens);
      boolean taken =
          isFor(batch.queryStart[s + 1] - batch.queryStart[s], context, group)
              && count() + units <= fits;
      first.add(taken ? count() : NONE);
      if (taken) {
        take(batch, s, units);
      }
    }
    if (count() > 0) {
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
   * Puts what was planned last into a step's buffer; null where there is nothing to make.
   *
   * @param room for what is made
   */
  final AttentionKernels.@Nullable Prepared send(StepBuffer buffer, Scratch room) {
    if (count() == 0) {
      return null;
    }
    return send(
        buffer,
        placeIn(room),
        CudaStep.Attention.put(first, buffer),
        new AttentionKernels.Tiles(
            CudaStep.Attention.put(tileSequence, buffer),
            CudaStep.Attention.put(tileToken, buffer),
            tileSequence.count));
  }

  /**
   * Puts the units into a step's buffer.
   *
   * @param room on the device
   * @param sentFirst {@link #first}, there
   */
  abstract AttentionKernels.Prepared send(
      StepBuffer buffer, long room, long sentFirst, AttentionKernels.Tiles tiles);
}
