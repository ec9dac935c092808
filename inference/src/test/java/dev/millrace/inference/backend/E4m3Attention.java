package dev.millrace.inference.backend;

import dev.millrace.inference.checkpoint.E4m3;
import java.util.function.IntFunction;

/**
 * Attention as a GPU computes it in e4m3, with the same roundings and all else in double: queries
 * by their own largest number, and weights, times 256, beside the largest score of their tile of
 * keys.
 */
public final class E4m3Attention {
  private static final int TILE = 128;
  private static final double MOST_WEIGHT = 256;

  private E4m3Attention() {}

  /** What the GPU multiplies of a query. */
  public static double[] rounded(double[] query) {
    float largest = 0;
    for (double q : query) {
      largest = Math.max(largest, (float) Math.abs(q));
    }
    float scale = E4m3.scale(largest);
    double[] rounded = new double[query.length];
    for (int i = 0; i < rounded.length; i++) {
      rounded[i] = E4m3.round((float) query[i] / scale) * (double) scale;
    }
    return rounded;
  }

  /**
   * One query's result.
   *
   * @param query of bfloat16
   * @param keys of each position, as the cache keeps them
   * @param positions that the query sees
   * @param scale of products of queries and keys
   */
  public static double[] attended(
      double[] query,
      IntFunction<double[]> keys,
      IntFunction<double[]> values,
      int positions,
      double scale) {
    double[] q = rounded(query);
    double[] out = new double[query.length];
    double sum = 0;
    double top = Double.NEGATIVE_INFINITY;
    for (int from = 0; from < positions; from += TILE) {
      int count = Math.min(TILE, positions - from);
      double[] scores = new double[count];
      double tileTop = Double.NEGATIVE_INFINITY;
      for (int j = 0; j < count; j++) {
        scores[j] = scale * dot(q, keys.apply(from + j));
        tileTop = Math.max(tileTop, scores[j]);
      }
      double before = top;
      top = Math.max(top, tileTop);
      double shrink = Math.exp(before - top);
      double share = Math.exp(tileTop - top);
      sum *= shrink;
      for (int i = 0; i < out.length; i++) {
        out[i] *= shrink;
      }
      for (int j = 0; j < count; j++) {
        double weight = share * E4m3.round((float) (MOST_WEIGHT * Math.exp(scores[j] - tileTop)));
        sum += weight;
        double[] value = values.apply(from + j);
        for (int i = 0; i < out.length; i++) {
          out[i] += weight * value[i];
        }
      }
    }
    for (int i = 0; i < out.length; i++) {
      out[i] /= sum;
    }
    return out;
  }

  private static double dot(double[] a, double[] b) {
    double sum = 0;
    for (int i = 0; i < a.length; i++) {
      sum += a[i] * b[i];
    }
    return sum;
  }
}
