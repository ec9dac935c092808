package dev.millrace.topology.chaos;

import dev.millrace.schemas.ChunkEvent;
import java.util.TreeMap;
import org.jspecify.annotations.Nullable;

/**
 * The chunks of one prompt, by attempt. A text is held as its length and hash: those of the winning
 * attempt must be the completion's. For one thread.
 */
final class Chunks {
  private final TreeMap<Integer, Attempt> attempts = new TreeMap<>();

  private static final class Attempt {
    int next;
    int length;
    int hash;
    boolean last;
  }

  /** What a chunk is to those before it. */
  enum Fit {
    NEXT,
    SEEN_BEFORE,
    GAP
  }

  Fit add(ChunkEvent chunk) {
    Attempt attempt = attempts.computeIfAbsent(chunk.getAttempt(), n -> new Attempt());
    if (chunk.getSequence() < attempt.next) {
      return Fit.SEEN_BEFORE;
    }
    Fit fit = chunk.getSequence() == attempt.next ? Fit.NEXT : Fit.GAP;
    attempt.next = chunk.getSequence() + 1;
    String text = chunk.getContent();
    for (int i = 0; i < text.length(); i++) {
      attempt.hash = 31 * attempt.hash + text.charAt(i);
    }
    attempt.length += text.length();
    attempt.last |= chunk.getLast();
    return fit;
  }

  /** Attempts of which chunks were seen. */
  int attempts() {
    return attempts.size();
  }

  /** What is wrong with the winning attempt's chunks; null if nothing is. */
  @Nullable String problem(int winner, int length, int hash) {
    Attempt attempt = attempts.get(winner);
    if (attempt == null) {
      return "no chunk of the winning attempt " + winner;
    }
    if (!attempt.last) {
      return "the winning attempt " + winner + " has no last chunk";
    }
    if (attempt.length != length || attempt.hash != hash) {
      return "the chunks of the winning attempt %d make %d characters, the completion has %d"
          .formatted(winner, attempt.length, length);
    }
    return null;
  }
}
