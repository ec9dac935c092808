package dev.millrace.inference.sampling;

import dev.millrace.inference.api.TokenLogprob;
import org.jspecify.annotations.Nullable;

/**
 * Draws tokens from logits: a pure function of (logits, {@link SamplingState}). Holds scratch
 * memory, so each thread has its own.
 */
public final class Sampler {
  /** Returned where the logits are not numbers (NaN, +infinity, or all -infinity). */
  public static final int FAILED = -1;

  public Sampler(int vocabSize) {
    throw new UnsupportedOperationException("the sampler is not built yet");
  }

  /**
   * The token at {@link SamplingState#position()}. The caller appends it to the state.
   *
   * @param logits [offset, offset + vocabSize) is the row; left as it is
   * @return the token, or {@link #FAILED}
   */
  public int sample(float[] logits, int offset, SamplingState state) {
    throw new UnsupportedOperationException("the sampler is not built yet");
  }

  /**
   * Log-probabilities of the row that {@link #sample} saw last, or null if its parameters ask for
   * none or it failed.
   */
  public @Nullable TokenLogprob logprob() {
    throw new UnsupportedOperationException("the sampler is not built yet");
  }
}
