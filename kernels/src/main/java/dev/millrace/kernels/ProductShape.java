package dev.millrace.kernels;

import java.util.Locale;

/**
 * A matrix product's shape but for its rows.
 *
 * @param inputs columns of weight and x
 * @param outputs rows of the weight, columns of out
 * @param alignment bytes that every address is a multiple of, at most 256
 */
record ProductShape(
    Kind kind,
    int inputs,
    int outputs,
    int xStride,
    int outStride,
    CublasLt.Output output,
    int alignment) {

  /** What is multiplied. */
  enum Kind {
    BF16,
    /** e4m3. */
    FP8
  }

  /** By which timings of it are kept. */
  String key(int rows) {
    return String.format(
        Locale.ROOT,
        "%s %dx%d/%d/%d %s %d rows %d",
        kind,
        inputs,
        outputs,
        xStride,
        outStride,
        output,
        alignment,
        rows);
  }
}
