package dev.millrace.topology.chaos;

import dev.millrace.schemas.CompletionFinish;
import dev.millrace.topology.chaos.Books.Duplicate;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.OptionalLong;

/** What came of a run: the table, and whether all is as it must be. */
public final class ChaosReport {
  private final ChaosOptions options;
  private final Books books;
  private final Recovery recovery;

  /** The workers' progress.ahead.tokens. */
  private final int ahead;

  private final FaultLog faults;
  private final Regenerated regenerated;
  private final Holders holders;
  private final Duplicates duplicates;

  ChaosReport(
      ChaosOptions options,
      Books books,
      Recovery recovery,
      FaultLog faults,
      Holders holders,
      Regenerated regenerated,
      int ahead) {
    this.ahead = ahead;
    this.options = options;
    this.books = books;
    this.recovery = recovery;
    this.faults = faults;
    this.holders = holders;
    this.regenerated = regenerated;
    this.duplicates = new Duplicates(books.duplicated(), faults, holders);
  }

  /** SIGKILLs to workers that had prompts in flight: the others show nothing. */
  public int killsWithPromptsInFlight() {
    return faults.killsInFlight();
  }

  /** How long output stayed away after each fault of a kind, milliseconds, shortest first. */
  List<Long> recoveries(Fault fault) {
    return recovery.times().getOrDefault(fault, List.of());
  }

  /** What is not as it must be; nothing, if all is. */
  public List<String> failures() {
    List<String> failures = new ArrayList<>();
    int lost = books.sent() - books.settled();
    if (lost > 0) {
      failures.add(lost + " prompts have no outcome: " + shown(books.missing()));
    }
    if (!books.deadLetters().equals(books.poison())) {
      failures.add(
          "dead letters are " + books.deadLetters() + ", injected poison is " + books.poison());
    }
    int again = books.duplicated().size();
    if (options.exactlyOnce() && again > 0) {
      failures.add(again + " duplicates, where exactly_once_v2 allows none");
    }
    if (options.exactlyOnce() && books.repeatedChunks() > 0) {
      failures.add(books.repeatedChunks() + " chunks came twice under exactly_once_v2");
    }
    List<Duplicate> unexplained = duplicates.unexplained();
    if (!unexplained.isEmpty()) {
      failures.add(
          unexplained.size()
              + " duplicates of outcomes that no fault and no move of their task was near");
      for (Duplicate d : unexplained.subList(0, Math.min(20, unexplained.size()))) {
        failures.add(
            String.format(
                Locale.ROOT,
                "%s, partition %d: first at %.1f s, again %.1f s later",
                d.id(),
                d.partition(),
                (d.firstMs() - faults.startMs()) / 1e3,
                (d.againMs() - d.firstMs()) / 1e3));
      }
    }
    int most = regenerated.most();
    if (ahead > 0 && most > ahead) {
      failures.add(
          most + " tokens of one prompt were generated again at once, " + ahead + " are allowed");
    }
    if (faults.killsPlanned() > 0 && faults.killsInFlight() == 0) {
      failures.add(
          faults.killsPlanned()
              + " kills were planned and none hit a worker with prompts in flight: they show"
              + " nothing");
    }
    recovery.open().forEach(open -> failures.add("output never came back after " + open));
    if (books.problemCount() > 0) {
      failures.add(books.problemCount() + " things went wrong");
      failures.addAll(books.problems());
    }
    return failures;
  }

  private static String shown(List<String> ids) {
    return String.join(", ", ids.subList(0, Math.min(20, ids.size())))
        + (ids.size() > 20 ? ", ..." : "");
  }

  /** The table, a line each. */
  public List<String> lines() {
    List<String> lines = new ArrayList<>();
    add(lines, "prompts", "%d", books.sent());
    add(
        lines,
        "completions",
        "%d, of them %d expired, %d cancelled",
        books.completions(),
        books.finished(CompletionFinish.EXPIRED),
        books.finished(CompletionFinish.CANCELLED));
    add(lines, "dead letters", "%s", books.deadLetters());
    add(lines, "injected poison", "%s", books.poison());
    add(lines, "lost", "%d", books.sent() - books.settled());
    add(
        lines,
        "duplicates",
        "%d, by what they came of %s, near nothing of their task %d; %d late ones with another end",
        books.duplicated().size(),
        duplicates.causes(),
        duplicates.unexplained().size(),
        books.duplicated().stream().filter(Duplicate::late).count());
    add(
        lines,
        "chunks",
        "%d, of them %d repeated; %d streams had more than one attempt",
        books.chunks(),
        books.repeatedChunks(),
        books.streamedAgain());
    add(
        lines,
        "regenerated tokens",
        "%d of %d generated; most for one prompt: kill -9 during %s, other moves %d",
        regenerated.again(),
        regenerated.total(),
        regenerated.byKill(),
        regenerated.otherwise());
    add(lines, "tasks moved with prompts", "%d times", holders.moves());
    add(
        lines,
        "faults",
        "%s; %d kills with prompts in flight, %d workers ended by themselves",
        faults.done(),
        faults.killsInFlight(),
        faults.diedByThemselves());
    addWaits(lines, "wait before any fault", waits(0, firstFaultMs()));
    addWaits(lines, "wait since the first", waits(firstFaultMs(), Long.MAX_VALUE));
    recovery
        .times()
        .forEach(
            (fault, times) ->
                add(
                    lines,
                    "recovery " + fault,
                    "median %.1f s, p99 %.1f s, max %.1f s (%d)",
                    at(times, 0.5),
                    at(times, 0.99),
                    at(times, 1),
                    times.size()));
    return lines;
  }

  /**
   * How much longer the slowest prompt had to wait than the slowest one before the first fault.
   *
   * @return milliseconds; nothing where no prompt was answered on one of the two sides
   */
  OptionalLong longestWaitBeyondNormal() {
    List<Long> before = waits(0, firstFaultMs());
    List<Long> since = waits(firstFaultMs(), Long.MAX_VALUE);
    return before.isEmpty() || since.isEmpty()
        ? OptionalLong.empty()
        : OptionalLong.of(since.getLast() - before.getLast());
  }

  private long firstFaultMs() {
    return faults.beganMs().stream().mapToLong(at -> at).min().orElse(Long.MAX_VALUE);
  }

  private List<Long> waits(long fromMs, long toMs) {
    return books.waits(options.tokensPerSecond(), fromMs, toMs);
  }

  private static void addWaits(List<String> lines, String name, List<Long> waits) {
    if (!waits.isEmpty()) {
      add(
          lines,
          name,
          "median %.2f s, p99 %.2f s, max %.2f s (%d)",
          at(waits, 0.5),
          at(waits, 0.99),
          at(waits, 1),
          waits.size());
    }
  }

  private static double at(List<Long> sorted, double share) {
    return sorted.get((int) Math.max(0, Math.ceil(share * sorted.size()) - 1)) / 1e3;
  }

  private static void add(List<String> lines, String name, String format, Object... values) {
    lines.add(
        String.format(Locale.ROOT, "%-26s", name) + String.format(Locale.ROOT, format, values));
  }
}
