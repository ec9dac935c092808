package dev.millrace.inference.backend.cuda;

import dev.millrace.inference.backend.Rotary;
import dev.millrace.inference.backend.Step;
import dev.millrace.inference.engine.Batch;
import dev.millrace.kernels.AttentionKernels;
import dev.millrace.kernels.BeginKernels;
import java.util.HashMap;
import java.util.Map;
import java.util.Objects;
import java.util.function.BooleanSupplier;
import org.jspecify.annotations.Nullable;

/**
 * A step on the GPU: addresses of its arrays, and what layers share of what is made from them. It
 * has a batch, or is one that is recorded, whose arrays are filled later.
 */
final class CudaStep implements Step {
  final Arrays arrays;
  @Nullable Rotary rotary;
  private final @Nullable Live live;
  private final int tokens;
  private final int logitRows;
  private @Nullable Embedding embedding;
  private BeginKernels.@Nullable Angles angles;
  private @Nullable BooleanSupplier whole;

  /** What is computed now. */
  private record Live(Batch batch, StepBuffer buffer, @Nullable CudaSampled previous) {}

  /**
   * Where a step's arrays are.
   *
   * @param begins of decode steps: where each row's sequence is among the sequences
   * @param attention plans that were sent, by the number of KV heads
   */
  record Arrays(
      long tokens,
      long tokenFrom,
      long positions,
      long slots,
      long logitRows,
      long begins,
      AttentionKernels.Sequences sequences,
      Map<Integer, Attention> attention) {}

  /**
   * Where a plan's arrays are.
   *
   * @param prepared tiles beside the others, which read what is made of a cache before; or null
   */
  record Attention(
      AttentionKernels.Tiles tiles,
      AttentionKernels.@Nullable Prepared prepared,
      AttentionKernels.Items items,
      AttentionKernels.Merges merges) {
    static Attention send(
        AttentionPlan plan, AttentionKernels.@Nullable Prepared prepared, StepBuffer buffer) {
      Attention sent =
          new Attention(
              new AttentionKernels.Tiles(
                  put(plan.tileSequence, buffer),
                  put(plan.tileToken, buffer),
                  plan.tileSequence.count),
              prepared,
              new AttentionKernels.Items(
                  put(plan.itemSequence, buffer),
                  put(plan.itemFrom, buffer),
                  put(plan.itemTo, buffer),
                  plan.itemSequence.count),
              new AttentionKernels.Merges(
                  put(plan.mergeSequence, buffer),
                  put(plan.mergeFirst, buffer),
                  put(plan.mergeItems, buffer),
                  plan.mergeSequence.count));
      buffer.send();
      return sent;
    }

    static long put(AttentionPlan.Ints ints, StepBuffer buffer) {
      return buffer.put(ints.values, ints.count);
    }
  }

  /** Where a step's tokens are embedded. */
  record Embedding(CudaWeight table, CudaTensor out) {
    /**
     * Of a step that has a batch.
     *
     * @throws IndexOutOfBoundsException if it has a token that is none
     */
    BeginKernels.Embedding of(CudaStep step) {
      Batch batch = step.batch();
      for (int t = 0; t < batch.tokenCount; t++) {
        if (batch.tokenFrom[t] < 0) {
          Objects.checkIndex(batch.tokens[t], table.rows());
        }
      }
      return new BeginKernels.Embedding(
          step.arrays.tokens(),
          step.arrays.tokenFrom(),
          step.sampledBefore(),
          table.address(),
          out.address(),
          table.columns());
    }
  }

  /**
   * What a recorded step leaves to whoever launches it.
   *
   * @param whole launches all that comes between angles and drawing, if that is one kernel; then
   *     there is nothing to record. False: the driver refuses it, from here on
   */
  record Left(Embedding embedding, BeginKernels.Angles angles, @Nullable BooleanSupplier whole) {}

  private CudaStep(Arrays arrays, @Nullable Live live, int tokens, int logitRows) {
    this.arrays = arrays;
    this.live = live;
    this.tokens = tokens;
    this.logitRows = logitRows;
  }

  /**
   * Brings a batch to the device.
   *
   * @param buffer begun for this step
   */
  static CudaStep send(Batch batch, StepBuffer buffer, @Nullable CudaSampled previous) {
    check(batch, previous);
    // Of a decode step these are the sequences' numbers too.
    long starts = buffer.put(batch.queryStart, batch.sequences + 1);
    Arrays arrays =
        new Arrays(
            buffer.put(batch.tokens, batch.tokenCount),
            buffer.put(batch.tokenFrom, batch.tokenCount),
            buffer.put(batch.positions, batch.tokenCount),
            buffer.put(batch.slots, batch.tokenCount),
            buffer.put(batch.logitRows, batch.logitCount),
            starts,
            new AttentionKernels.Sequences(
                starts,
                buffer.put(batch.contextLength, batch.sequences),
                buffer.put(batch.blockTable, Math.multiplyExact(batch.sequences, batch.maxBlocks)),
                batch.maxBlocks),
            new HashMap<>());
    buffer.send();
    return sent(batch, buffer, previous, arrays);
  }

  /** A batch whose arrays were sent already. */
  static CudaStep sent(
      Batch batch, StepBuffer buffer, @Nullable CudaSampled previous, Arrays arrays) {
    check(batch, previous);
    return new CudaStep(
        arrays, new Live(batch, buffer, previous), batch.tokenCount, batch.logitCount);
  }

  /** A step to record, with logits of all of its rows. */
  static CudaStep recorded(int rows, Arrays arrays) {
    return new CudaStep(arrays, null, rows, rows);
  }

  private static void check(Batch batch, @Nullable CudaSampled previous) {
    for (int t = 0; t < batch.tokenCount; t++) {
      if (batch.tokenFrom[t] >= 0 && previous == null) {
        throw new IllegalStateException("token " + t + " comes from a step that has no result");
      }
    }
  }

  /** Whether every sequence has one query token, and wants its logits. */
  boolean isDecode() {
    return live == null || live.batch.isDecode();
  }

  boolean recorded() {
    return live == null;
  }

  Batch batch() {
    return live().batch;
  }

  StepBuffer buffer() {
    return live().buffer;
  }

  private Live live() {
    if (live == null) {
      throw new IllegalStateException("a step that is recorded has no batch");
    }
    return live;
  }

  /** Tokens that the step before drew, on the device; 0 where there is none. */
  long sampledBefore() {
    CudaSampled previous = live().previous;
    return previous == null ? 0 : previous.address();
  }

  void leave(Embedding left) {
    embedding = left;
  }

  void leave(BeginKernels.Angles left) {
    angles = left;
  }

  void leave(BooleanSupplier left) {
    whole = left;
  }

  /** What was left. */
  Left left() {
    if (embedding == null) {
      throw new IllegalStateException("the network embedded no tokens");
    }
    BeginKernels.Angles none = new BeginKernels.Angles(arrays.positions(), 0, 0, 0, 0, 0);
    return new Left(embedding, angles == null ? none : angles, whole);
  }

  @Override
  public int tokens() {
    return tokens;
  }

  @Override
  public int logitRows() {
    return logitRows;
  }
}
