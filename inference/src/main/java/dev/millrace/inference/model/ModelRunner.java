package dev.millrace.inference.model;

import dev.millrace.inference.backend.Gauge;
import dev.millrace.inference.checkpoint.ModelConfig;
import dev.millrace.inference.engine.Runner;

/**
 * A runner of a network: owns it with its backend; whoever opens it closes it, after the engine.
 */
public interface ModelRunner extends Runner {
  /** What the checkpoint says of its model. */
  ModelConfig config();

  /** What a step of this network must read. */
  Footprint footprint();

  /** What the device can do at most; may be used only while no engine runs on this. */
  Gauge gauge();

  /** Steps so far that the device was given as a whole, recorded before. Thread-safe. */
  default long graphSteps() {
    return 0;
  }

  /** Device and settings, for people. */
  String describe();
}
