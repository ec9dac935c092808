package dev.millrace.inference.backend;

/**
 * What the keys and values of a layer are divided by before they are rounded to FP8, and multiplied
 * by when they are read. A cache of any other format has no use for them.
 *
 * @param keys above 0
 * @param values above 0
 */
public record KvScale(float keys, float values) {
  /** Numbers as they are: e4m3 reaches to 448, and loses nothing that matters above 1/64. */
  public static final KvScale NONE = new KvScale(1, 1);

  public KvScale {
    if (!(keys > 0 && values > 0 && Float.isFinite(keys) && Float.isFinite(values))) {
      throw new IllegalArgumentException(
          "scales must be above 0 and finite: " + keys + ", " + values);
    }
  }
}
