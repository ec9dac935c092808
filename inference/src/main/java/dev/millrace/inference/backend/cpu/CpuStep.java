package dev.millrace.inference.backend.cpu;

import dev.millrace.inference.backend.Rotary;
import dev.millrace.inference.backend.Step;
import dev.millrace.inference.engine.Batch;
import org.jspecify.annotations.Nullable;

/** A batch with its tokens known; angles are computed once for all layers. */
final class CpuStep implements Step {
  final Batch batch;
  final int[] tokens;
  private @Nullable Rotary rotary;
  private float[] cos = new float[0];
  private float[] sin = new float[0];

  CpuStep(Batch batch, int[] tokens) {
    this.batch = batch;
    this.tokens = tokens;
  }

  @Override
  public int tokens() {
    return batch.tokenCount;
  }

  @Override
  public int logitRows() {
    return batch.logitCount;
  }

  /** Computes cosines and sines of the batch's positions unless that is done already. */
  void rotate(Rotary by, Workers workers) {
    if (by == rotary) {
      return;
    }
    int pairs = by.pairs();
    cos = new float[batch.tokenCount * pairs];
    sin = new float[batch.tokenCount * pairs];
    float[] c = cos;
    float[] s = sin;
    workers.run(
        (worker, count) -> {
          int to = Workers.from(batch.tokenCount, 1, worker + 1, count);
          for (int t = Workers.from(batch.tokenCount, 1, worker, count); t < to; t++) {
            by.at(batch.positions[t], c, s, t * pairs);
          }
        });
    rotary = by;
  }

  /** [tokens, pairs]. */
  float[] cos() {
    return cos;
  }

  /** [tokens, pairs]. */
  float[] sin() {
    return sin;
  }
}
