package dev.millrace.topology.chaos;

import dev.millrace.schemas.CompletionFinish;
import dev.millrace.topology.chaos.Books.Duplicate;
import dev.millrace.topology.chaos.WorkerPlace.Life;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.EnumMap;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/** What came of a run: the table, and whether all is as it must be. */
public final class ChaosReport {
  /** A completion that was sent so shortly before a fault may not have been retired. */
  private static final long BEFORE_MS = 5_000;

  /** So long after its end a fault may still have effects. */
  private static final long AFTER_MS = 3_000;

  private final ChaosOptions options;
  private final Books books;
  private final Recovery recovery;

  /** The workers' progress.ahead.tokens. */
  private final int ahead;

  private final FaultLog faults;
  private final Regenerated regenerated;
  private final List<Long> moves;
  private final List<Duplicate> unexplained;

  /**
   * Tokens that were generated more than once.
   *
   * @param total all that were generated
   * @param again those among them that had been generated before
   * @param most for one prompt at one SIGKILL, by the fault that it was a part of
   * @param mostElse for one prompt at any other change of its worker
   */
  private record Regenerated(long total, long again, Map<Fault, Integer> most, int mostElse) {}

  private record Submission(TokenLog.Entry entry, @Nullable Fault killedBy) {}

  ChaosReport(
      ChaosOptions options,
      Books books,
      Recovery recovery,
      FaultLog faults,
      List<WorkerPlace> places,
      int ahead) {
    this.ahead = ahead;
    this.options = options;
    this.books = books;
    this.recovery = recovery;
    this.faults = faults;
    this.regenerated = regenerated(places);
    this.moves = places.stream().flatMap(place -> place.moves().stream()).toList();
    this.unexplained = books.duplicated().stream().filter(d -> !explained(d)).toList();
  }

  private boolean explained(Duplicate duplicate) {
    long at = duplicate.firstMs();
    return faults.windows().stream()
            .anyMatch(w -> at >= w.fromMs() - BEFORE_MS && at <= w.toMs() + AFTER_MS)
        || moves.stream().anyMatch(moved -> at >= moved - BEFORE_MS && at <= moved + AFTER_MS);
  }

  private static Regenerated regenerated(List<WorkerPlace> places) {
    Map<Integer, List<Submission>> byPrompt = new HashMap<>();
    for (WorkerPlace place : places) {
      for (Life life : place.lives()) {
        for (TokenLog.Entry entry : TokenLog.read(life.tokens())) {
          byPrompt
              .computeIfAbsent(entry.number(), n -> new ArrayList<>())
              .add(new Submission(entry, life.killedBy()));
        }
      }
    }
    long total = 0;
    long again = 0;
    Map<Fault, Integer> most = new EnumMap<>(Fault.class);
    int mostElse = 0;
    for (List<Submission> submissions : byPrompt.values()) {
      submissions.sort(Comparator.comparingLong(s -> s.entry().startedMs()));
      int reached = 0;
      Fault last = null;
      for (Submission submission : submissions) {
        TokenLog.Entry entry = submission.entry();
        int overlap = Math.max(0, Math.min(reached, entry.reached()) - entry.from());
        total += entry.reached() - entry.from();
        again += overlap;
        if (last != null) {
          most.merge(last, overlap, Math::max);
        } else {
          mostElse = Math.max(mostElse, overlap);
        }
        reached = Math.max(reached, entry.reached());
        last = submission.killedBy();
      }
    }
    return new Regenerated(total, again, most, mostElse);
  }

  /** SIGKILLs to workers that had prompts in flight: the others show nothing. */
  public int killsWithPromptsInFlight() {
    return faults.killsInFlight();
  }

  /** Recovery times of the SIGKILLs, milliseconds, shortest first. */
  public List<Long> killRecoveries() {
    return recovery.times().getOrDefault(Fault.KILL, List.of());
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
    int duplicates = books.duplicated().size();
    if (options.exactlyOnce() && duplicates > 0) {
      failures.add(duplicates + " duplicates, where exactly_once_v2 allows none");
    }
    if (options.exactlyOnce() && books.repeatedChunks() > 0) {
      failures.add(books.repeatedChunks() + " chunks came twice under exactly_once_v2");
    }
    if (!unexplained.isEmpty()) {
      failures.add(
          unexplained.size()
              + " duplicates of outcomes that no fault and no move of a task was near");
      for (Duplicate d : unexplained.subList(0, Math.min(20, unexplained.size()))) {
        failures.add(
            String.format(
                Locale.ROOT,
                "%s: first at %.1f s, again %.1f s later",
                d.id(),
                (d.firstMs() - faults.startMs()) / 1e3,
                (d.againMs() - d.firstMs()) / 1e3));
      }
    }
    int most = regenerated.most().values().stream().reduce(regenerated.mostElse(), Math::max);
    if (ahead > 0 && most > ahead) {
      failures.add(
          most + " tokens of one prompt were generated again at once, " + ahead + " are allowed");
    }
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
        "%d, of them %d near no fault and no move of a task; %d late ones with another end",
        books.duplicated().size(),
        unexplained.size(),
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
        regenerated.most(),
        regenerated.mostElse());
    add(lines, "tasks moved with prompts", "%d times", moves.size());
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
   * @return milliseconds
   */
  public long longestWaitBeyondNormal() {
    List<Long> before = waits(0, firstFaultMs());
    List<Long> since = waits(firstFaultMs(), Long.MAX_VALUE);
    return before.isEmpty() || since.isEmpty() ? 0 : since.getLast() - before.getLast();
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
