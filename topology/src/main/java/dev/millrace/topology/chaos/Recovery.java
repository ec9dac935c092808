package dev.millrace.topology.chaos;

import java.util.ArrayList;
import java.util.EnumMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;

/**
 * How long output stays away after a fault: for each partition of the prompts' topic that had
 * prompts in flight, the time from the fault to the next outcome of a prompt of that partition; the
 * longest of these is the fault's recovery time. Safe for several threads.
 */
final class Recovery {
  private record Probe(Fault fault, long atMs, Set<Integer> waiting) {}

  private final List<Probe> open = new ArrayList<>();
  private final Map<Fault, List<Long>> times = new EnumMap<>(Fault.class);

  /** A fault has happened now. */
  synchronized void begin(Fault fault, long nowMs, Set<Integer> partitions) {
    if (!partitions.isEmpty()) {
      open.add(new Probe(fault, nowMs, new HashSet<>(partitions)));
    }
  }

  /**
   * An outcome was read.
   *
   * @param writtenMs when the worker wrote it
   */
  synchronized void arrived(int partition, long writtenMs, long nowMs) {
    open.removeIf(
        probe -> {
          if (writtenMs < probe.atMs) {
            return false;
          }
          probe.waiting.remove(partition);
          if (!probe.waiting.isEmpty()) {
            return false;
          }
          times.computeIfAbsent(probe.fault, f -> new ArrayList<>()).add(nowMs - probe.atMs);
          return true;
        });
  }

  /**
   * The faults after which output never came back, each with the partitions that it stayed away of.
   */
  synchronized List<String> open() {
    return open.stream()
        .map(probe -> probe.fault + " at " + probe.atMs + ": partitions " + probe.waiting)
        .toList();
  }

  /** Milliseconds by fault, shortest first. */
  synchronized Map<Fault, List<Long>> times() {
    Map<Fault, List<Long>> sorted = new TreeMap<>();
    times.forEach((fault, list) -> sorted.put(fault, list.stream().sorted().toList()));
    return sorted;
  }
}
