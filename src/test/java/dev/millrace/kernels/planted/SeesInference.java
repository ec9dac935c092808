package dev.millrace.kernels.planted;

/** Breaks a rule, so that a test sees that it notices. */
public final class SeesInference {
  dev.millrace.inference.engine.Batch batch;
}
