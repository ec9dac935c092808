package dev.millrace.topology.chaos;

import java.time.Duration;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Locale;
import java.util.Random;

/** Which fault comes when: a function of the options alone, so that a run can be repeated. */
final class FaultPlan {
  /** Nothing breaks before prompts flow, and the last fault has time to show what it does. */
  private static final long FIRST_MS = 4_000;

  private static final long LAST_MS = 6_000;

  /**
   * One of them.
   *
   * @param atMs milliseconds since the start
   * @param worker whom it hits, where it hits one
   * @param length how long it lasts
   * @param variant a number below 100, for what differs between two of a kind
   */
  record Step(long atMs, Fault fault, int worker, Duration length, int variant) {
    /** Whether a worker is killed for it, of those that are to run all the time. */
    boolean kills() {
      return switch (fault) {
        case KILL, WIPE -> true;
        case REGISTRY_REFUSED, REGISTRY_500, REGISTRY_SLOW -> variant < 50;
        case OUTPUT -> variant < 60;
        case TERMINATE, FREEZE, BROKER, STORM, SLOW, DUPLICATES, CUT, CANCELS -> false;
      };
    }

    @Override
    public String toString() {
      return String.format(
          Locale.ROOT,
          "%s worker %d, %.1f s, variant %d",
          fault,
          worker,
          length.toMillis() / 1e3,
          variant);
    }
  }

  private FaultPlan() {}

  /** The same fault for each worker after the other, once prompts have flowed for a while. */
  static List<Step> rolling(ChaosOptions options, Fault fault, Duration length) {
    List<Step> steps = new ArrayList<>();
    long pause = options.gap().toMillis();
    for (int worker = 0; worker < options.workers(); worker++) {
      steps.add(new Step(pause * (worker + 2), fault, worker, length, 0));
    }
    return steps;
  }

  /** Goes through all kinds in an order of its own, then through all again. */
  static List<Step> of(ChaosOptions options) {
    Random random = new Random(options.seed());
    List<Step> steps = new ArrayList<>();
    List<Fault> bag = new ArrayList<>();
    long gap = options.gap().toMillis();
    long at = FIRST_MS;
    while (at < options.length().toMillis() - LAST_MS) {
      if (bag.isEmpty()) {
        bag.addAll(options.faults());
        Collections.shuffle(bag, random);
      }
      Fault fault = bag.removeLast();
      Duration length = Duration.ofMillis(length(fault, random));
      steps.add(
          new Step(at, fault, random.nextInt(options.workers()), length, random.nextInt(100)));
      at += length.toMillis() + gap + random.nextLong(gap);
    }
    return steps;
  }

  private static long length(Fault fault, Random random) {
    return switch (fault) {
      // How long the worker or the broker stays away.
      case KILL, WIPE, TERMINATE -> random.nextInt(6_000);
      case BROKER -> 300 + random.nextInt(3_000);
      // Longer than the session of 6 s.
      case FREEZE -> 8_000 + random.nextInt(5_000);
      case CUT -> 9_000 + random.nextInt(3_000);
      case STORM -> 8_000 + random.nextInt(4_000);
      case REGISTRY_REFUSED, REGISTRY_500, REGISTRY_SLOW -> 4_000 + random.nextInt(4_000);
      case SLOW -> 5_000 + random.nextInt(5_000);
      case OUTPUT -> 3_000 + random.nextInt(4_000);
      case DUPLICATES, CANCELS -> 3_000;
    };
  }
}
