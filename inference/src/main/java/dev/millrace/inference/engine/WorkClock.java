package dev.millrace.inference.engine;

/**
 * Where the time of an {@link Engine} goes. The engine's thread counts, without allocating; any
 * thread may read.
 */
final class WorkClock {
  private volatile long steps;
  private volatile long tokens;
  private volatile long members;
  private volatile long hostNanos;
  private volatile long awaitNanos;
  private volatile long emptyNanos;

  // Of the engine's thread.
  private long roundStart;
  private long awaitedBefore;
  private long awaitStart;

  /** Since when nothing is in flight although there is work; 0: something is, or there is none. */
  private long emptySince;

  void roundBegins() {
    roundStart = System.nanoTime();
    awaitedBefore = awaitNanos;
  }

  void roundEnds() {
    long awaited = awaitNanos - awaitedBefore;
    hostNanos = hostNanos + (System.nanoTime() - roundStart - awaited);
  }

  void submitted() {
    if (emptySince != 0) {
      emptyNanos = emptyNanos + (System.nanoTime() - emptySince);
      emptySince = 0;
    }
  }

  void awaitBegins() {
    awaitStart = System.nanoTime();
  }

  /**
   * @param inFlight steps that are still under way
   */
  void awaitEnds(long inFlight) {
    long now = System.nanoTime();
    awaitNanos = awaitNanos + (now - awaitStart);
    emptySince = inFlight == 0 ? now : 0;
  }

  void ended(Step step) {
    steps = steps + 1;
    tokens = tokens + step.batch.tokenCount;
    members = members + step.size();
  }

  /** There is no work: a device without a step is not idle through any fault of the host. */
  void rests() {
    emptySince = 0;
  }

  Engine.Work read() {
    return new Engine.Work(steps, tokens, members, hostNanos, awaitNanos, emptyNanos);
  }
}
