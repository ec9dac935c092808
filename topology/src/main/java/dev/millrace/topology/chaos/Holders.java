package dev.millrace.topology.chaos;

import dev.millrace.topology.chaos.WorkerPlace.Life;
import java.util.ArrayList;
import java.util.List;
import java.util.function.IntUnaryOperator;

/**
 * Which worker held which partition of the prompts' topic, and when: from the workers' logs, which
 * name a task that is taken over or handed over with prompts, and from their engines' logs, since a
 * task without prompts changes hands without a word. For one thread.
 */
final class Holders {
  private final List<Sign> signs = new ArrayList<>();

  /**
   * What shows that a worker holds a partition, or no longer does.
   *
   * @param move it got it or gave it away just then
   */
  private record Sign(int partition, int worker, long atMs, boolean holds, boolean move) {}

  /**
   * Reads what the workers have left.
   *
   * @param partitions partition of a prompt by its number; -1 where nobody knows
   */
  static Holders read(List<WorkerPlace> places, IntUnaryOperator partitions) {
    Holders holders = new Holders();
    for (WorkerPlace place : places) {
      for (WorkerPlace.Move move : place.moves()) {
        holders.moved(move.partition(), place.number, move.atMs(), move.taken());
      }
      for (Life life : place.lives()) {
        for (TokenLog.Entry entry : TokenLog.read(life.tokens())) {
          holders.ran(partitions.applyAsInt(entry.number()), place.number, entry.startedMs());
        }
      }
    }
    return holders;
  }

  /** A worker took a partition over, or handed it over. */
  void moved(int partition, int worker, long atMs, boolean taken) {
    signs.add(new Sign(partition, worker, atMs, taken, true));
  }

  /** A worker gave a prompt of a partition to its engine. */
  void ran(int partition, int worker, long atMs) {
    signs.add(new Sign(partition, worker, atMs, true, false));
  }

  /** Whether the worker held the partition, so far as anything of that time shows. */
  boolean held(int worker, int partition, long atMs) {
    Sign last = null;
    for (Sign sign : signs) {
      boolean one = sign.partition == partition && sign.atMs <= atMs;
      // What another hands over is not this one's.
      if (one
          && (sign.holds || sign.worker == worker)
          && (last == null || sign.atMs >= last.atMs)) {
        last = sign;
      }
    }
    return last != null && last.worker == worker && last.holds;
  }

  /** Whether the partition was taken over or handed over from one time to the other. */
  boolean moved(int partition, long fromMs, long toMs) {
    return signs.stream()
        .anyMatch(
            sign ->
                sign.move
                    && sign.partition == partition
                    && sign.atMs >= fromMs
                    && sign.atMs <= toMs);
  }

  /** How often a task changed hands with prompts. */
  long moves() {
    return signs.stream().filter(Sign::move).count();
  }
}
