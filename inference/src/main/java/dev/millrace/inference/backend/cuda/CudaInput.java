package dev.millrace.inference.backend.cuda;

import dev.millrace.inference.backend.Tensor;
import dev.millrace.inference.checkpoint.Quantization;

/**
 * What FP8 layers read: a result that is rounded to e4m3 where it is made, in memory of {@link
 * CudaFp8} that the next one takes over.
 *
 * @param room where it would be as bfloat16
 * @param quantization of the layers, one and the same
 */
record CudaInput(CudaFp8 fp8, CudaTensor room, Quantization quantization) implements Tensor {
  @Override
  public int rows() {
    return room.rows();
  }

  @Override
  public int columns() {
    return room.columns();
  }

  @Override
  public int elementBytes() {
    return Byte.BYTES;
  }

  /** What the layers multiply: rounded, and times the scale again. */
  @Override
  public float[] toHost(int rows) {
    return fp8.toHost(this, rows);
  }

  @Override
  public void fromHost(float[] values) {
    throw new UnsupportedOperationException("an FP8 input is filled by kernels alone");
  }
}
