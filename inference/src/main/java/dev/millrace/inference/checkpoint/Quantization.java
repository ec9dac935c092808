package dev.millrace.inference.checkpoint;

/**
 * How a matrix of {@link WeightFormat#F8_E4M3} is multiplied: a number of it is its pattern's times
 * {@code scale}, and what it multiplies is divided by {@code inputScale}, rounded to e4m3, and
 * multiplied back.
 *
 * @param scale above 0
 * @param inputScale above 0; {@link #PER_ROW}: each row by the scale that its largest number needs
 */
public record Quantization(float scale, float inputScale) {
  /** Each row of the input has a scale of its own, as large as its numbers need it. */
  public static final float PER_ROW = 0;

  public Quantization {
    if (!(scale > 0 && Float.isFinite(scale) && inputScale >= 0 && Float.isFinite(inputScale))) {
      throw new IllegalArgumentException(
          "scales must be finite, and above 0 or 0 for one a row: " + scale + ", " + inputScale);
    }
  }

  /** Whether the input's scale is known beforehand. */
  public boolean fixed() {
    return inputScale != PER_ROW;
  }

  /**
   * Holds that a float has both scales' product, by which results are multiplied.
   *
   * @param name of the matrix
   * @throws InvalidCheckpointException if it is too large or too small for one
   */
  public void check(String name) {
    float both = scale * inputScale;
    if (fixed() && !(both >= Float.MIN_NORMAL && Float.isFinite(both))) {
      throw new InvalidCheckpointException(
          "the scale of the matrix %s is %s and that of its input %s: their product %s must be from %s to %s: the checkpoint is damaged"
              .formatted(name, scale, inputScale, both, Float.MIN_NORMAL, Float.MAX_VALUE));
    }
  }

  /** As this, with another scale of the input. */
  public Quantization withInputScale(float other) {
    return new Quantization(scale, other);
  }
}
