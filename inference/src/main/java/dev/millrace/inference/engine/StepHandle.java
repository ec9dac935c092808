package dev.millrace.inference.engine;

import dev.millrace.inference.api.TokenLogprob;
import org.jspecify.annotations.Nullable;

/** A step in flight. */
public interface StepHandle {

  /**
   * Waits for the step to end. Handles are awaited in the order of submission, each once.
   *
   * @throws StepFailedException if the step failed; its results are lost
   */
  Result await() throws StepFailedException;

  /**
   * What a step sampled; valid until the batch is submitted again.
   *
   * @param tokens [logitCount] the sampled token of each logit row, or -1 where the row's logits
   *     were not numbers: that sequence fails and no other (a following step that takes its token
   *     from such a row may use any token: what it computes is dropped)
   * @param logprobs [logitCount] where the row asked for them, else null entries
   */
  record Result(int[] tokens, @Nullable TokenLogprob[] logprobs) {}
}
