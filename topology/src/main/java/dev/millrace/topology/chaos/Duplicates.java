package dev.millrace.topology.chaos;

import dev.millrace.topology.chaos.Books.Duplicate;
import dev.millrace.topology.chaos.FaultLog.Window;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.jspecify.annotations.Nullable;

/**
 * Why outcomes came more than once. Under at_least_once an outcome may come again only where it was
 * not retired yet when the task that had sent it lost its worker: the task's partition must have
 * been at the worker that a fault hit, or must have moved, and the outcome must have been sent so
 * shortly before that its retirement was not durable.
 */
final class Duplicates {
  /**
   * An outcome is retired by the commit after the one that it was written before, which are 200 ms
   * apart; the rest is for a machine with other work.
   */
  static final long RETIRED_MS = 1_400;

  /** What a duplicate is said to come of where no fault hit its partition, and it moved. */
  static final String MOVE = "move";

  private final FaultLog faults;
  private final Holders holders;
  private final Map<String, Integer> causes = new TreeMap<>();
  private final List<Duplicate> unexplained = new ArrayList<>();

  Duplicates(List<Duplicate> all, FaultLog faults, Holders holders) {
    this.faults = faults;
    this.holders = holders;
    for (Duplicate duplicate : all) {
      String cause = cause(duplicate);
      if (cause == null) {
        unexplained.add(duplicate);
      } else {
        causes.merge(cause, 1, Integer::sum);
      }
    }
  }

  private @Nullable String cause(Duplicate duplicate) {
    for (Window window : faults.windows()) {
      if (!window.holdsUp() && explains(window, duplicate)) {
        return window.cause();
      }
    }
    for (Window window : faults.windows()) {
      if (window.holdsUp() && explains(window, duplicate)) {
        return window.cause();
      }
    }
    long at = duplicate.firstMs();
    return holders.moved(duplicate.partition(), at, at + RETIRED_MS) ? MOVE : null;
  }

  private boolean explains(Window window, Duplicate duplicate) {
    long at = duplicate.firstMs();
    // What holds up commits still does so for a moment when it is over.
    long after = window.holdsUp() ? RETIRED_MS : 0;
    return at >= window.fromMs() - RETIRED_MS
        && at <= window.toMs() + after
        && hit(window, duplicate);
  }

  private boolean hit(Window window, Duplicate duplicate) {
    int partition = duplicate.partition();
    if (window.worker() != FaultLog.ALL) {
      // A worker that is slow is given tasks all the same.
      long last = window.holdsUp() ? Math.min(duplicate.firstMs(), window.toMs()) : 0;
      return holders.held(window.worker(), partition, window.fromMs())
          || holders.held(window.worker(), partition, last);
    }
    // It hits everyone, but only who then lost the task left something to send again.
    return holders.moved(
        partition,
        window.fromMs() - RETIRED_MS,
        Math.max(duplicate.firstMs(), duplicate.againMs()) + RETIRED_MS);
  }

  /** Those that have a reason, by it. */
  Map<String, Integer> causes() {
    return causes;
  }

  List<Duplicate> unexplained() {
    return unexplained;
  }
}
