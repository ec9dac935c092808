package dev.millrace.inference.backend;

/**
 * All layers of a network and its logits in one go, for steps that a {@link Backend} has that for.
 */
public interface WholeNetwork {
  /**
   * Does what layer after layer would do, but for the order in which numbers are added and how
   * often a result on its way to FP8 is rounded. Returns false, and has done nothing, if the step
   * is not one that this is for.
   *
   * @param state the embedded tokens; may be anything afterwards
   * @param logits get the step's
   */
  boolean run(Step step, Tensor state, Tensor logits);
}
