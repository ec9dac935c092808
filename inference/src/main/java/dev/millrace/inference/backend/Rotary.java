package dev.millrace.inference.backend;

/**
 * Angles of a rotary position embedding: at position p pair i turns by {@code p ·
 * inverseFrequencies[i]}, and cosine and sine are multiplied by {@code scale}. Pair i of a head of
 * d numbers is (i, i + d/2). Compared by identity; a model has one.
 */
public final class Rotary {
  private final double[] inverseFrequencies;
  private final double scale;

  public Rotary(double[] inverseFrequencies, double scale) {
    this.inverseFrequencies = inverseFrequencies.clone();
    this.scale = scale;
  }

  /** Of each pair, in radians a position. */
  public double[] inverseFrequencies() {
    return inverseFrequencies.clone();
  }

  /** What cosines and sines are multiplied by. */
  public double scale() {
    return scale;
  }

  /** Half the numbers of a head. */
  public int pairs() {
    return inverseFrequencies.length;
  }

  /**
   * Cosines and sines of one position, each times the scale, into {@code cos} and {@code sin} from
   * {@code offset} on. Computed in double, so that positions of millions keep their precision, and
   * with StrictMath, so that every machine has the same bits.
   */
  public void at(int position, float[] cos, float[] sin, int offset) {
    for (int i = 0; i < inverseFrequencies.length; i++) {
      double angle = position * inverseFrequencies[i];
      cos[offset + i] = (float) (StrictMath.cos(angle) * scale);
      sin[offset + i] = (float) (StrictMath.sin(angle) * scale);
    }
  }
}
