package dev.millrace.inference.model;

import dev.millrace.inference.checkpoint.WeightFormat;
import java.nio.file.Path;

/** What to make a network from. */
public sealed interface ModelSource {

  /**
   * The folder of a Hugging Face checkpoint.
   *
   * @param precision of linear layers
   */
  record Folder(Path folder, Precision precision) implements ModelSource {
    /** As it is stored. */
    public Folder(Path folder) {
      this(folder, Precision.AS_STORED);
    }

    @Override
    public String toString() {
      return folder.toString();
    }
  }

  /**
   * The shape that a {@code config.json} tells, with weights that are made up.
   *
   * @param config the file
   * @param format of the matrices
   * @param seed equal seeds give equal weights
   */
  record Random(Path config, WeightFormat format, long seed) implements ModelSource {
    @Override
    public String toString() {
      return "random weights of " + config;
    }
  }
}
