package dev.millrace.inference.backend.cuda;

import dev.millrace.inference.backend.Weight;
import dev.millrace.inference.checkpoint.WeightFormat;

/**
 * A matrix on a GPU, bfloat16, row by row.
 *
 * @param format as the checkpoint has it
 */
record CudaWeight(long address, WeightFormat format, int rows, int columns) implements Weight {
  /** Where the next matrix begins if it follows on this one. */
  long end() {
    return address + (long) rows * columns * Short.BYTES;
  }
}
