package dev.millrace.topology;

/**
 * Bounds how many bytes of progress are saved a second, with bursts of up to a second's worth.
 * Shared by all tasks of a worker; safe for several threads.
 */
final class SaveBudget {
  private final long perSecond;
  private double left;
  private long at = Long.MIN_VALUE;

  SaveBudget(long perSecond) {
    this.perSecond = perSecond;
    this.left = perSecond;
  }

  /**
   * Takes bytes out of the budget, if there are any left: the last ones may overdraw it.
   *
   * @param now milliseconds since 1970
   */
  synchronized boolean take(long bytes, long now) {
    if (at != Long.MIN_VALUE) {
      left = Math.min(perSecond, left + perSecond * Math.max(0, now - at) / 1e3);
    }
    at = now;
    if (left <= 0) {
      return false;
    }
    left -= bytes;
    return true;
  }
}
