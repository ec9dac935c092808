package dev.millrace.topology.supervisor;

import java.time.Duration;
import java.util.OptionalLong;
import java.util.SplittableRandom;

/**
 * How long to wait before a worker that ended is started again. The pause doubles with each end, up
 * to a longest one; a random part of it keeps workers that fell together from coming back together.
 * Belongs to the thread of its worker.
 */
final class Backoff {
  private static final int MOST_DOUBLINGS = 20;

  private final Limits limits;
  private final SplittableRandom random;
  private int ends;
  private boolean everReady;

  /**
   * The numbers.
   *
   * @param healthy after being ready for so long earlier ends are forgotten
   * @param mostStarts of a worker that has never been ready
   */
  record Limits(Duration first, Duration longest, Duration healthy, int mostStarts) {}

  Backoff(Limits limits, long seed) {
    this.limits = limits;
    this.random = new SplittableRandom(seed);
  }

  /**
   * The worker has ended.
   *
   * @param ready how long it was ready; zero if it never came so far
   * @return milliseconds until the next start; empty if another start is no use
   */
  OptionalLong ended(Duration ready) {
    everReady |= !ready.isZero();
    if (ready.compareTo(limits.healthy()) >= 0) {
      ends = 0;
    }
    ends++;
    if (!everReady && ends >= limits.mostStarts()) {
      return OptionalLong.empty();
    }
    long doubled = limits.first().toMillis() << Math.min(ends - 1, MOST_DOUBLINGS);
    long pause = Math.min(doubled, limits.longest().toMillis());
    return OptionalLong.of(pause / 2 + random.nextLong(pause / 2 + 1));
  }
}
