package dev.millrace.topology.chaos;

import java.util.ArrayList;
import java.util.EnumMap;
import java.util.List;
import java.util.Map;

/** What the faults of a run did, and when; the report is made of it. For one thread. */
final class FaultLog {
  private final long startMs;
  private final Map<Fault, Integer> done = new EnumMap<>(Fault.class);
  private final List<Window> windows = new ArrayList<>();
  private final List<Long> began = new ArrayList<>();
  private int killsInFlight;
  private int killsPlanned;
  private int diedByThemselves;

  /**
   * So long after a broker is back its group coordinator may still read the offsets topic and look
   * for the members: what was written in that time was seen unretired up to 8 s after it.
   */
  private static final long COORDINATOR_MS = 10_000;

  /** In place of a worker's number: every one. */
  static final int ALL = -1;

  /**
   * When workers lost tasks, or could not commit; milliseconds since 1970.
   *
   * @param cause the fault, or what else it was
   * @param worker whom it hit, or {@link #ALL}
   * @param holdsUp commits were held up all the time; or else a worker was gone at the end of it
   */
  record Window(String cause, int worker, long fromMs, long toMs, boolean holdsUp) {}

  /**
   * @param startMs when the run began, milliseconds since 1970
   */
  FaultLog(long startMs) {
    this.startMs = startMs;
  }

  /** A fault begins. */
  void began(long atMs) {
    began.add(atMs);
  }

  /** A fault is over. */
  void done(Fault fault) {
    done.merge(fault, 1, Integer::sum);
  }

  /** In this time a worker could not commit, or {@link #ALL} could not. */
  void heldUp(Fault fault, int worker, long fromMs, long toMs) {
    long after = fault == Fault.BROKER ? COORDINATOR_MS : 0;
    windows.add(new Window(fault.name(), worker, fromMs, toMs + after, true));
  }

  /** A worker ended at some moment of this time. */
  void ended(Fault fault, int worker, long fromMs, long toMs) {
    windows.add(new Window(fault.name(), worker, fromMs, toMs, false));
  }

  /** So many steps of the plan kill a worker. */
  void planned(int kills) {
    killsPlanned = kills;
  }

  /** A worker with prompts in flight was killed. */
  void killedInFlight() {
    killsInFlight++;
  }

  /** A worker ended, at some moment of this time, that nobody had told to. */
  void diedByItself(int worker, long fromMs, long toMs) {
    diedByThemselves++;
    windows.add(new Window("ended by itself", worker, fromMs, toMs, false));
  }

  long startMs() {
    return startMs;
  }

  /** How often each was done. */
  Map<Fault, Integer> done() {
    return done;
  }

  /** When each fault began, milliseconds since 1970. */
  List<Long> beganMs() {
    return began;
  }

  List<Window> windows() {
    return windows;
  }

  /** SIGKILLs to workers that had prompts in flight. */
  int killsInFlight() {
    return killsInFlight;
  }

  int killsPlanned() {
    return killsPlanned;
  }

  int diedByThemselves() {
    return diedByThemselves;
  }
}
