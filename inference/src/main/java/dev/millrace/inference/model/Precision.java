package dev.millrace.inference.model;

/** What linear layers are multiplied as; embedding, output and norms stay as they are stored. */
public enum Precision {
  /** As the checkpoint has them. */
  AS_STORED,
  /** FP8 of the checkpoint is widened. */
  BF16,
  /**
   * Weights and inputs in e4m3: as the checkpoint has them, or made from it with a scale for each
   * group of matrices that read one input and one for each row of the input. What the checkpoint
   * excludes from quantisation stays.
   */
  FP8
}
