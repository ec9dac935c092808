package dev.millrace.inference.backend;

/** A batch where the device can use it, its tokens filled in; valid until the step has ended. */
public interface Step {
  /** Query tokens: rows of the activations. */
  int tokens();

  /** Rows of which logits are wanted. */
  int logitRows();
}
