package dev.millrace.inference.backend;

import dev.millrace.inference.api.TokenLogprob;
import org.jspecify.annotations.Nullable;

/** The tokens that a step drew, where the next step can take them from. */
public interface Sampled {
  /**
   * Waits for the tokens.
   *
   * @return one for each logit row; {@link dev.millrace.inference.sampling.Sampler#FAILED} where
   *     the logits were not numbers
   */
  int[] tokens();

  /** One for each logit row, null where none were asked for. */
  @Nullable TokenLogprob[] logprobs();
}
