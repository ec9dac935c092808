package dev.millrace.inference.backend;

/**
 * Numbers on a device, [rows, columns], row by row: activations, norms, biases, logits. Which type
 * they have there is the backend's business; to the host they are float32. A handle belongs to the
 * {@link Backend} that made it and goes with it.
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
