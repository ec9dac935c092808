package dev.millrace.inference.checkpoint;

/**
 * Which rotary position embedding a model was trained with. All numbers are doubles: the theta of
 * some models has more digits than a float.
 */
public sealed interface RopeConfig {
  /** Base of the angles: pair i of a head of d dimensions turns by {@code theta^(-2i/d)}. */
  double theta();

  /** Unscaled angles. */
  record Plain(double theta) implements RopeConfig {}

  /**
   * Llama 3.1: long waves are slowed by {@code factor}, short ones kept, those between blended.
   *
   * @param originalContext positions that the model was first trained with
   */
  record Llama3(
      double theta, double factor, double lowFreqFactor, double highFreqFactor, int originalContext)
      implements RopeConfig {}

  /**
   * YaRN (arXiv 2309.00071).
   *
   * @param originalContext positions that the model was first trained with
   * @param betaFast turns within that context from which on a pair is kept
   * @param betaSlow turns within that context up to which a pair is slowed by {@code factor}
   * @param attentionFactor multiplies cosines and sines
   * @param truncate whether the borders between kept and slowed pairs are rounded to whole pairs
   */
  record Yarn(
      double theta,
      double factor,
      int originalContext,
      double betaFast,
      double betaSlow,
      double attentionFactor,
      boolean truncate)
      implements RopeConfig {}
}
