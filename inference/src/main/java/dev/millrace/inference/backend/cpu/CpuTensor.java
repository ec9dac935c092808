package dev.millrace.inference.backend.cpu;

import dev.millrace.inference.backend.Tensor;
import java.util.Arrays;

/** Activations on the heap; the garbage collector frees them. */
record CpuTensor(float[] data, int rows, int columns) implements Tensor {
  CpuTensor(int rows, int columns) {
    this(new float[Math.multiplyExact(rows, columns)], rows, columns);
  }

  @Override
  public float[] toHost(int rows) {
    return Arrays.copyOf(data, Math.multiplyExact(rows, columns));
  }

  @Override
  public void fromHost(float[] values) {
    System.arraycopy(values, 0, data, 0, values.length);
  }
}
