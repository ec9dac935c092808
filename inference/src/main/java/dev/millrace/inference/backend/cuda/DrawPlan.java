package dev.millrace.inference.backend.cuda;

import dev.millrace.inference.api.SamplingParams;
import dev.millrace.inference.engine.Batch;
import dev.millrace.inference.sampling.Sampler;
import dev.millrace.inference.sampling.SamplingState;
import dev.millrace.inference.sampling.TokenCounts;
import dev.millrace.kernels.SamplingKernels;

/**
 * How a step's tokens are drawn, as the sampling kernel takes it. The host need not know yet what
 * the step before drew: that token counts as pending, and the kernel looks it up.
 */
final class DrawPlan {
  final SamplingKernels.Draw[] draws;
  final AttentionPlan.Ints masked = new AttentionPlan.Ints();

  /** Pairs of token and count. */
  final AttentionPlan.Ints seen = new AttentionPlan.Ints();

  boolean logprobs;

  DrawPlan(Batch batch, int vocab) {
    draws = new SamplingKernels.Draw[batch.logitCount];
    for (int row = 0; row < draws.length; row++) {
      int query = batch.logitRows[row];
      draws[row] =
          draw(batch.sampling[row], batch.positions[query] + 1, batch.tokenFrom[query], vocab);
    }
  }

  private SamplingKernels.Draw draw(SamplingState state, int position, int tokenFrom, int vocab) {
    SamplingParams params = state.params();
    int unknown = position - state.position();
    if (unknown != 0 && !(unknown == 1 && tokenFrom >= 0)) {
      throw new IllegalStateException(
          "the token at %d is to be drawn, but %d are known".formatted(position, state.position()));
    }
    logprobs |= params.logprobs() >= 0;
    int firstSeen = seen.count / 2;
    int pending = -1;
    if (params.hasPenalties()) {
      TokenCounts counts = state.counts();
      for (int i = 0; i < counts.size(); i++) {
        seen.add(counts.token(i));
        seen.add(counts.count(i));
      }
      pending = unknown == 1 ? tokenFrom : -1;
    }
    int firstMasked = masked.count;
    for (int token : state.masked(position)) {
      if (token < vocab) {
        masked.add(token);
      }
    }
    return new SamplingKernels.Draw(
        Sampler.stream(params.seed(), position),
        params.topK() == 1 ? 0 : params.temperature(),
        params.minP() == 0 ? Double.NEGATIVE_INFINITY : StrictMath.log(params.minP()),
        params.topP(),
        params.topK(),
        params.logprobs(),
        params.repetitionPenalty(),
        params.presencePenalty(),
        params.frequencyPenalty(),
        firstSeen,
        seen.count / 2 - firstSeen,
        pending,
        firstMasked,
        masked.count - firstMasked);
  }
}
