package dev.millrace.inference.engine;

import java.util.Arrays;

/**
 * How many tokens' memory will be held at each later step, where each sequence grows by a token a
 * step until its expected end and then gives back what it holds. Never less than what these
 * expectations come to: time is in spans, and what ends in a span counts to the end of it. Plain
 * bookkeeping, of the engine thread; a sequence costs a few additions, a span one.
 */
final class MemoryForecast {
  private static final int SPANS = 256;

  private final int blockSize;

  /** [span] sequences that end in it, what they hold now, what they will at their ends. */
  private final int[] ending = new int[SPANS];

  private final long[] holding = new long[SPANS];
  private final long[] ends = new long[SPANS];

  /** [span] most tokens held in it. */
  private final long[] held = new long[SPANS];

  /** A span has two to the power of this many steps. */
  private int shift;

  MemoryForecast(int blockSize) {
    this.blockSize = blockSize;
  }

  /** Begins anew, for sequences that grow by at most so many tokens. */
  void begin(int horizon) {
    Arrays.fill(ending, 0);
    Arrays.fill(holding, 0);
    Arrays.fill(ends, 0);
    shift = Math.max(0, Integer.SIZE - Integer.numberOfLeadingZeros(horizon) - 8);
  }

  /** Most tokens that a sequence may grow by. */
  int horizon() {
    return (int) Math.min(Integer.MAX_VALUE, ((long) SPANS << shift) - 1);
  }

  /**
   * Counts a sequence, between {@link #begin} and {@link #settle}.
   *
   * @param tokens that it holds memory for now
   * @param growth tokens that are still to come
   */
  void count(long tokens, int growth) {
    int end = growth >> shift;
    ending[end]++;
    holding[end] += tokens;
    ends[end] += whole(tokens + growth);
  }

  /** All have been counted. */
  void settle() {
    int count = 0;
    long tokens = 0;
    for (int span = SPANS - 1; span >= 0; span--) {
      held[span] = ends[span] + tokens + count * grown(span);
      count += ending[span];
      tokens += holding[span];
    }
  }

  /** Whether as much memory is enough with one more sequence, for as long as that one is there. */
  boolean fits(long tokens, int growth, long memory) {
    int end = growth >> shift;
    for (int span = 0; span < end; span++) {
      if (held[span] + tokens + grown(span) > memory) {
        return false;
      }
    }
    return held[end] + whole(tokens + growth) <= memory;
  }

  /** One more sequence, after {@link #settle}. */
  void add(long tokens, int growth) {
    int end = growth >> shift;
    for (int span = 0; span < end; span++) {
      held[span] += tokens + grown(span);
    }
    held[end] += whole(tokens + growth);
  }

  /** Most by which the memory of a sequence that outlives a span has grown in it. */
  private long grown(int span) {
    return ((span + 1L) << shift) - 1 + blockSize - 1;
  }

  private long whole(long tokens) {
    return Math.ceilDiv(tokens, blockSize) * blockSize;
  }
}
