package dev.millrace.inference.backend.cuda;

import dev.millrace.inference.backend.Rotary;
import dev.millrace.inference.backend.Step;
import dev.millrace.inference.engine.Batch;
import dev.millrace.kernels.AttentionKernels;
import java.util.HashMap;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/** A batch on the GPU: addresses of its arrays, and what layers share of what is made from them. */
final class CudaStep implements Step {
  final Batch batch;
  final StepBuffer buffer;
  final @Nullable CudaSampled previous;
  final long tokens;
  final long tokenFrom;
  final long positions;
  final long slots;
  final long logitRows;
  final AttentionKernels.Sequences sequences;
  final Map<Integer, Attention> attention = new HashMap<>();
  @Nullable Rotary rotary;

  /** Where a plan's arrays are. */
  record Attention(
      AttentionKernels.Tiles tiles, AttentionKernels.Items items, AttentionKernels.Merges merges) {
    static Attention send(AttentionPlan plan, StepBuffer buffer) {
      Attention sent =
          new Attention(
              new AttentionKernels.Tiles(
                  put(plan.tileSequence, buffer),
                  put(plan.tileToken, buffer),
                  plan.tileSequence.count),
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

    private static long put(AttentionPlan.Ints ints, StepBuffer buffer) {
      return buffer.put(ints.values, ints.count);
    }
  }

  /** Brings a batch to the device. */
  CudaStep(Batch batch, StepBuffer buffer, @Nullable CudaSampled previous) {
    this.batch = batch;
    this.buffer = buffer;
    this.previous = previous;
    for (int t = 0; t < batch.tokenCount; t++) {
      if (batch.tokenFrom[t] >= 0 && previous == null) {
        throw new IllegalStateException("token " + t + " comes from a step that has no result");
      }
    }
    buffer.begin();
    this.tokens = buffer.put(batch.tokens, batch.tokenCount);
    this.tokenFrom = buffer.put(batch.tokenFrom, batch.tokenCount);
    this.positions = buffer.put(batch.positions, batch.tokenCount);
    this.slots = buffer.put(batch.slots, batch.tokenCount);
    this.logitRows = buffer.put(batch.logitRows, batch.logitCount);
    this.sequences =
        new AttentionKernels.Sequences(
            buffer.put(batch.queryStart, batch.sequences + 1),
            buffer.put(batch.contextLength, batch.sequences),
            buffer.put(batch.blockTable, Math.multiplyExact(batch.sequences, batch.maxBlocks)),
            batch.maxBlocks);
    buffer.send();
  }

  /** Tokens that the step before drew, on the device; 0 where there is none. */
  long sampledBefore() {
    return previous == null ? 0 : previous.address();
  }

  @Override
  public int tokens() {
    return batch.tokenCount;
  }

  @Override
  public int logitRows() {
    return batch.logitCount;
  }
}
