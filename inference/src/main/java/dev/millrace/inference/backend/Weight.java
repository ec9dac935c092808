package dev.millrace.inference.backend;

import dev.millrace.inference.checkpoint.WeightFormat;

/**
 * A matrix of a checkpoint where a device can use it, [rows = outputs, columns = inputs]. The
 * handle belongs to the {@link Backend} that made it and goes with it.
 */
public interface Weight {
  int rows();

  int columns();

  WeightFormat format();
}
