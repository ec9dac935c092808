package dev.millrace.kernels;

/**
 * Rows of bfloat16 numbers on a device.
 *
 * @param address of the first row
 * @param stride numbers from the beginning of a row to that of the next
 */
public record Rows(long address, int stride) {
  private static final int VECTOR_BYTES = 16;

  /** Whether kernels may move 16 bytes at once of rows that are so wide. */
  boolean aligned(int width) {
    return address % VECTOR_BYTES == 0 && stride * 2L % VECTOR_BYTES == 0 && width % 8 == 0;
  }
}
