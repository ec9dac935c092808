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
  private int diedByThemselves;

  /** When a worker may have lost what it had not committed; milliseconds since 1970. */
  record Window(long fromMs, long toMs) {}

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

  /** In this time a worker may have lost what it had not committed. */
  void disrupted(long fromMs, long toMs) {
    windows.add(new Window(fromMs, toMs));
  }

  /** A worker with prompts in flight was killed. */
  void killedInFlight() {
    killsInFlight++;
  }

  /** A worker ended that nobody had told to. */
  void diedByItself() {
    diedByThemselves++;
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

  int diedByThemselves() {
    return diedByThemselves;
  }
}
