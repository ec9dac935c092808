package dev.millrace.inference.engine;

import java.util.Arrays;

/**
 * How long answers get before they end by themselves, learned from those that were given: the
 * Kaplan-Meier estimate, in which an answer that its limit cut off, or that is not at its end yet,
 * says that it came to so many tokens and nothing of how many it would have come to. So limits far
 * above what answers take do no harm, and neither does it that short answers are the first to end.
 * Plain bookkeeping, of the engine thread.
 *
 * <p>Lengths are in classes that widen with them, eight to a doubling. What few have reached is
 * judged with a little of a belief held beforehand: of the answers that come to any length nine in
 * ten come to twice that. So an engine that knows nothing yet expects long answers, and of one that
 * has got farther than any it has seen that it will go on.
 */
final class AnswerLengths {
  /** As many as there are lengths, in classes. */
  private static final int CLASSES = 240;

  /** Share of those that get into a class that end in it, by that belief. */
  private static final double BELIEF = 0.013;

  /** As many answers the belief counts for. */
  private static final double WEIGHT = 4;

  /** Answers after which what was learned before counts for half. */
  private static final int MEMORY = 2048;

  /** [class] answers that got into it, ended in it by themselves, or were last seen in it. */
  private final double[] reached = new double[CLASSES];

  private final double[] stopped = new double[CLASSES];
  private final double[] left = new double[CLASSES];
  private double answers;

  /** [class] running answers that are in it. */
  private final int[] under = new int[CLASSES];

  /** [class] share of all answers that get to its first token; [CLASSES] 0. */
  private final double[] survival = new double[CLASSES + 1];

  AnswerLengths() {
    learn();
  }

  /**
   * An answer has ended.
   *
   * @param stopped whether by itself, before its limit
   */
  void ended(int length, boolean stopped) {
    int of = classOf(length);
    (stopped ? this.stopped : left)[of]++;
    for (int i = 0; i <= of; i++) {
      reached[i]++;
    }
    if (++answers >= MEMORY) {
      answers /= 2;
      for (int i = 0; i < CLASSES; i++) {
        reached[i] /= 2;
        this.stopped[i] /= 2;
        left[i] /= 2;
      }
    }
  }

  /** Begins to count the answers under way anew. */
  void forgetRunning() {
    Arrays.fill(under, 0);
  }

  /** An answer is under way. */
  void running(int length) {
    under[classOf(length)]++;
  }

  /** Draws conclusions from all that was said. */
  void learn() {
    long beyond = 0;
    for (int i = CLASSES - 1; i >= 0; i--) {
      beyond += under[i];
      // Those that were last seen in a class were in it for half of it.
      double exposed = reached[i] + beyond - (left[i] + under[i]) / 2;
      survival[i] = 1 - (stopped[i] + BELIEF * WEIGHT) / (exposed + WEIGHT);
    }
    double share = 1;
    for (int i = 0; i < CLASSES; i++) {
      double on = survival[i];
      survival[i] = share;
      share *= Math.max(0, on);
    }
    survival[CLASSES] = 0;
  }

  /**
   * The length which the given share of the answers that have got so far will not get beyond.
   *
   * @param share from 0, less than 1
   * @return more than {@code length}
   */
  int quantile(int length, double share) {
    int of = classOf(length);
    double within = (double) (length - first(of)) / (first(of + 1) - first(of));
    double here = survival[of] + within * (survival[of + 1] - survival[of]);
    double wanted = here * (1 - share);
    int low = of;
    int high = CLASSES;
    // The last class that as many reach.
    while (high - low > 1) {
      int middle = (low + high) >>> 1;
      if (survival[middle] >= wanted) {
        low = middle;
      } else {
        high = middle;
      }
    }
    double drop = survival[low] - survival[low + 1];
    double part = drop <= 0 ? 1 : Math.clamp((survival[low] - wanted) / drop, 0, 1);
    double end = first(low) + part * ((double) first(low + 1) - first(low));
    return (int) Math.min(Integer.MAX_VALUE, Math.max(length + 1L, Math.round(end)));
  }

  private static int classOf(int length) {
    int doubling = 31 - Integer.numberOfLeadingZeros(length | 7);
    return doubling < 3 ? length : ((doubling - 2) << 3) + ((length >>> (doubling - 3)) & 7);
  }

  private static int first(int of) {
    int doubling = of >> 3;
    if (doubling == 0) {
      return of;
    }
    long first = (8L + (of & 7)) << (doubling - 1);
    return (int) Math.min(Integer.MAX_VALUE, first);
  }
}
