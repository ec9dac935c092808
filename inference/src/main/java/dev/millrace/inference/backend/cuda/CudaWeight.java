package dev.millrace.inference.backend.cuda;

import dev.millrace.inference.backend.Weight;
import dev.millrace.inference.checkpoint.Quantization;
import dev.millrace.inference.checkpoint.WeightFormat;
import org.jspecify.annotations.Nullable;

/**
 * A matrix on a GPU, row by row: bfloat16, or e4m3.
 *
 * @param format what it is there, or what bfloat16 was made of
 * @param quantization of e4m3, null of bfloat16
 */
record CudaWeight(
    long address, WeightFormat format, int rows, int columns, @Nullable Quantization quantization)
    implements Weight {
  /** Where the next matrix begins if it follows on this one. */
  long end() {
    return address + (long) rows * columns * (quantization == null ? Short.BYTES : Byte.BYTES);
  }

  /** Whether one product can be that of this and another matrix. */
  boolean multipliesAs(CudaWeight other) {
    return java.util.Objects.equals(quantization, other.quantization);
  }
}
