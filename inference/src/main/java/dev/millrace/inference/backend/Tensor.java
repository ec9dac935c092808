package dev.millrace.inference.backend;

/**
 * float32 numbers on a device, [rows, columns], row-major: activations, norms and biases. A handle
 * belongs to the {@link Backend} that made it and goes with it.
 */
public interface Tensor {
  /** Rows there is room for; an operation says how many of them it uses. */
  int rows();

  int columns();

  /** Bytes that a number takes on the device. */
  default int elementBytes() {
    return Float.BYTES;
  }

  /** Copies the first {@code rows} rows to the host: for tests and for sampling on the host. */
  float[] toHost(int rows);

  /** Copies whole rows from the host into the first rows. */
  void fromHost(float[] values);
}
