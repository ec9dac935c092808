package dev.millrace.topology.chaos;

import dev.millrace.topology.chaos.WorkerPlace.Life;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.EnumMap;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * Tokens that were generated more than once.
 *
 * @param total all that were generated
 * @param again those among them that had been generated before
 * @param byKill most for one prompt at one SIGKILL, by the fault that it was a part of
 * @param otherwise most for one prompt at any other change of its worker
 */
record Regenerated(long total, long again, Map<Fault, Integer> byKill, int otherwise) {
  private record Submission(TokenLog.Entry entry, @Nullable Fault killedBy) {}

  /** What the engines of these processes have noted. */
  static Regenerated of(List<Life> lives) {
    Map<Integer, List<Submission>> byPrompt = new HashMap<>();
    for (Life life : lives) {
      for (TokenLog.Entry entry : TokenLog.read(life.tokens())) {
        byPrompt
            .computeIfAbsent(entry.number(), n -> new ArrayList<>())
            .add(new Submission(entry, life.killedBy()));
      }
    }
    long total = 0;
    long again = 0;
    Map<Fault, Integer> byKill = new EnumMap<>(Fault.class);
    int otherwise = 0;
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
          byKill.merge(last, overlap, Math::max);
        } else {
          otherwise = Math.max(otherwise, overlap);
        }
        reached = Math.max(reached, entry.reached());
        last = submission.killedBy();
      }
    }
    return new Regenerated(total, again, byKill, otherwise);
  }

  /** Most for one prompt at once. */
  int most() {
    return byKill.values().stream().reduce(otherwise, Math::max);
  }
}
