package dev.millrace.inference.bench;

import java.util.Arrays;

/** Durations in nanoseconds, as they come; for one thread. Grows when there is no more room. */
public final class Samples {
  private long[] values;
  private int size;

  /**
   * @param room for so many without growing
   */
  public Samples(int room) {
    values = new long[Math.max(16, room)];
  }

  public void add(long nanos) {
    if (size == values.length) {
      values = Arrays.copyOf(values, (int) Math.min(Integer.MAX_VALUE - 8, size * 2L));
    }
    values[size++] = nanos;
  }

  public void clear() {
    size = 0;
  }

  /** What they come to so far; sorts them. */
  public Summary summary() {
    Arrays.sort(values, 0, size);
    double sum = 0;
    for (int i = 0; i < size; i++) {
      sum += values[i];
    }
    return new Summary(
        size, size == 0 ? 0 : sum / size / 1e6, percentile(0.5), percentile(0.99), percentile(1));
  }

  /** The smallest value that so large a share of all do not exceed, in milliseconds. */
  private double percentile(double share) {
    if (size == 0) {
      return 0;
    }
    int rank = (int) Math.ceil(share * size);
    return values[Math.max(1, rank) - 1] / 1e6;
  }

  /**
   * All in milliseconds; zeros if there were none. A percentile is the value of its nearest rank.
   *
   * @param count of the durations
   */
  public record Summary(int count, double mean, double p50, double p99, double max) {}
}
