package dev.millrace.inference.engine;

import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.TreeSet;
import org.jspecify.annotations.Nullable;

/**
 * The order in which waiting sequences are admitted. Plain bookkeeping, of the engine thread; each
 * operation costs the logarithm of how many wait.
 *
 * <ul>
 *   <li>The highest priority goes first, but a share of the admitted tokens is owed to the others:
 *       when it has come together for the eldest of them, that one is next, and stays next until it
 *       fits. So each sequence gets its turn as long as any are admitted, and a high priority
 *       cannot be held up by how many wait at a low one, as it would be if waiting raised a
 *       priority.
 *   <li>Within a priority the tenant goes first that was given the fewest tokens (start-time fair
 *       queueing): one that was idle does not save up a claim, one with 100,000 waiting sequences
 *       does not hold up one with a single one. A sequence is charged all that it may come to when
 *       it is admitted, and given back what it did not use when it ends.
 *   <li>Within a tenant the order is that of submission.
 * </ul>
 */
final class WaitingQueue {
  /** Tenants of one priority that are remembered although nothing of theirs waits. */
  private static final int MOST_IDLE = 1024;

  private static final Comparator<Sequence> ARRIVAL = Comparator.comparingLong(s -> s.arrival);

  /** The waiting sequences of one tenant and priority. */
  private static final class Flow {
    final String tenant;
    final TreeSet<Sequence> waiting = new TreeSet<>(ARRIVAL);

    /** Tokens that it was given, from where it began. */
    double given;

    Flow(String tenant) {
      this.tenant = tenant;
    }

    long eldest() {
      return waiting.isEmpty() ? Long.MAX_VALUE : waiting.first().arrival;
    }
  }

  /** All of one priority. */
  private static final class PriorityClass {
    final int priority;
    final TreeSet<Sequence> waiting = new TreeSet<>(ARRIVAL);
    final Map<String, Flow> flows = new HashMap<>();

    /** Those with something waiting; their keys change only outside of the set. */
    final TreeSet<Flow> order =
        new TreeSet<>(
            Comparator.<Flow>comparingDouble(f -> f.given)
                .thenComparingLong(Flow::eldest)
                .thenComparing(f -> f.tenant));

    /** What the tenant that was served last had been given before: the others' starting point. */
    double level;

    PriorityClass(int priority) {
      this.priority = priority;
    }

    long eldest() {
      return waiting.first().arrival;
    }

    /** Anybody can make up tenants: what was given to those that left is not kept for ever. */
    void forgetIdle() {
      if (flows.size() - order.size() > MOST_IDLE) {
        flows.values().removeIf(f -> f.waiting.isEmpty());
      }
    }
  }

  private final double lowShare;

  /** By priority, and by who waits longest; those with nothing waiting are in neither. */
  private final TreeMap<Integer, PriorityClass> classes = new TreeMap<>();

  private final TreeSet<PriorityClass> byEldest =
      new TreeSet<>(
          Comparator.comparingLong(PriorityClass::eldest).thenComparingInt(c -> c.priority));

  /** Those that were emptied since {@link #settle}: what is put back finds its tenants again. */
  private final Map<Integer, PriorityClass> emptied = new HashMap<>();

  private int size;

  /** Tokens that the lower priorities are owed. */
  private double owed;

  /**
   * Whose turn it is by what the lower priorities are owed, from when it was taken out for that
   * until it is admitted or removed; it may be in the queue or out of it.
   */
  private @Nullable Sequence inTurn;

  WaitingQueue(double lowShare) {
    this.lowShare = lowShare;
  }

  int size() {
    return size;
  }

  boolean isEmpty() {
    return size == 0;
  }

  /** Puts a sequence in its place; one that was taken out before goes back to where it was. */
  void add(Sequence sequence) {
    int priority = sequence.request.scheduling().priority();
    PriorityClass of = classes.get(priority);
    if (of == null) {
      of = emptied.remove(priority);
      of = of == null ? new PriorityClass(priority) : of;
    } else {
      byEldest.remove(of);
    }
    Flow flow = of.flows.computeIfAbsent(sequence.request.scheduling().tenant(), Flow::new);
    if (flow.waiting.isEmpty()) {
      flow.given = Math.max(flow.given, of.level);
    } else {
      of.order.remove(flow);
    }
    flow.waiting.add(sequence);
    of.order.add(flow);
    of.waiting.add(sequence);
    classes.put(priority, of);
    byEldest.add(of);
    size++;
  }

  /** Takes a sequence out for good, wherever it stands. */
  void remove(Sequence sequence) {
    takeOut(sequence);
    if (sequence == inTurn) {
      inTurn = null;
    }
  }

  private void takeOut(Sequence sequence) {
    PriorityClass of = classes.get(sequence.request.scheduling().priority());
    Flow flow = of == null ? null : of.flows.get(sequence.request.scheduling().tenant());
    if (of == null || flow == null || !flow.waiting.contains(sequence)) {
      throw new IllegalStateException(sequence + " does not wait");
    }
    byEldest.remove(of);
    of.order.remove(flow);
    flow.waiting.remove(sequence);
    of.waiting.remove(sequence);
    size--;
    if (!flow.waiting.isEmpty()) {
      of.order.add(flow);
    }
    if (of.waiting.isEmpty()) {
      classes.remove(of.priority);
      emptied.put(of.priority, of);
    } else {
      byEldest.add(of);
    }
  }

  /** The next one, taken out; null if nobody waits. */
  @Nullable Sequence poll() {
    if (size == 0) {
      return null;
    }
    Sequence next = next();
    takeOut(next);
    return next;
  }

  private Sequence next() {
    PriorityClass top = classes.firstEntry().getValue();
    if (inTurn == null) {
      PriorityClass low = eldestBelow(top);
      if (low != null && lowShare > 0) {
        Sequence eldest = low.waiting.first();
        if (owed >= (1 - lowShare) * eldest.limit) {
          inTurn = eldest;
          return eldest;
        }
      }
    } else if (waits(inTurn)) {
      // It did not fit the last time.
      return inTurn;
    }
    return top.order.first().waiting.first();
  }

  private boolean waits(Sequence sequence) {
    PriorityClass of = classes.get(sequence.request.scheduling().priority());
    return of != null && of.waiting.contains(sequence);
  }

  private @Nullable PriorityClass eldestBelow(PriorityClass top) {
    PriorityClass eldest = byEldest.first();
    return eldest == top ? byEldest.higher(top) : eldest;
  }

  /** A sequence that was taken out is admitted: charges it. */
  void admitted(Sequence sequence) {
    int cost = sequence.limit;
    int priority = sequence.request.scheduling().priority();
    Sequence owedTo = inTurn;
    if (sequence == owedTo) {
      inTurn = null;
    }
    if (owedTo != null && sequence != owedTo && !waits(owedTo)) {
      // That one is out of the queue, and passed: it keeps what came together for it.
      sequence.paid = owedTo.request.scheduling().priority() > priority ? -lowShare * cost : 0;
      owed -= sequence.paid;
    } else if (classes.isEmpty()
        || (classes.lastKey() <= priority && classes.firstKey() >= priority)) {
      // Nobody else waits at another priority.
      owed = 0;
    } else if (classes.firstKey() < priority) {
      sequence.paid = (1 - lowShare) * cost;
      owed -= sequence.paid;
    } else {
      sequence.paid = -lowShare * cost;
      owed -= sequence.paid;
    }
    PriorityClass of = classes.get(priority);
    of = of == null ? emptied.get(priority) : of;
    Flow flow = of == null ? null : of.flows.get(sequence.request.scheduling().tenant());
    if (of != null && flow != null) {
      of.level = Math.max(of.level, flow.given);
      give(of, flow, cost);
      sequence.charged = cost;
      sequence.chargedTo = flow;
      of.forgetIdle();
    }
  }

  /** A sequence that was admitted is to wait again: it was as good as not admitted. */
  void returned(Sequence sequence) {
    owed = Math.max(owed + sequence.paid, Math.min(owed, 0));
    ended(sequence, 0);
  }

  /** A sequence runs no more, and came to so many tokens: gives back what it did not use. */
  void ended(Sequence sequence, int tokens) {
    PriorityClass of = classes.get(sequence.request.scheduling().priority());
    Flow flow = of == null ? null : of.flows.get(sequence.request.scheduling().tenant());
    // Where its tenant was forgotten since, the one of that name was never charged for it.
    if (of != null && flow != null && flow == sequence.chargedTo && sequence.charged > tokens) {
      give(of, flow, tokens - sequence.charged);
    }
    sequence.charged = 0;
    sequence.chargedTo = null;
    sequence.paid = 0;
  }

  private static void give(PriorityClass of, Flow flow, int tokens) {
    boolean ordered = !flow.waiting.isEmpty();
    if (ordered) {
      of.order.remove(flow);
    }
    flow.given += tokens;
    if (ordered) {
      of.order.add(flow);
    }
  }

  /** Ends a round of admissions: what was taken out and is not back is gone. */
  void settle() {
    emptied.clear();
  }

  /** All that wait. */
  List<Sequence> all() {
    List<Sequence> all = new ArrayList<>(size);
    classes.values().forEach(of -> all.addAll(of.waiting));
    return all;
  }

  /** Tenants that are remembered. */
  int tenants() {
    return classes.values().stream().mapToInt(of -> of.flows.size()).sum();
  }

  void clear() {
    classes.clear();
    byEldest.clear();
    emptied.clear();
    size = 0;
    owed = 0;
    inTurn = null;
  }
}
