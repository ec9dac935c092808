package dev.millrace.kernels;

/**
 * The shape of a matrix on the device, row after row.
 *
 * @param rows 1 or more
 * @param dim elements of a row, 1 or more
 */
public record Shape(int rows, int dim) {
  public Shape {
    if (rows < 1 || dim < 1) {
      throw new IllegalArgumentException(
          "a matrix of " + rows + " rows of " + dim + ": both must be 1 or more");
    }
  }

  /** Elements in all. */
  public long count() {
    return (long) rows * dim;
  }
}
