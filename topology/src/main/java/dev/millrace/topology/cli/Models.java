package dev.millrace.topology.cli;

import dev.millrace.inference.api.Generator;
import dev.millrace.topology.WorkerConfig;

/** Opens the model that a worker's settings name. */
final class Models {
  private Models() {}

  /** Loads and warms it. The caller closes it. */
  static Generator load(WorkerConfig config) {
    throw new Failures.CommandFailedException(
        "cannot load " + config.modelPath() + ": this build has no engine yet");
  }
}
