package dev.millrace.inference.engine.planted;

import dev.millrace.inference.planted.SeesEverything;

/** Breaks rules, so that a test sees that they notice. */
public final class SeesBackend {
  dev.millrace.inference.backend.Tensor tensor;
  SeesEverything cycle;
}
