package dev.millrace.topology.cli;

import java.nio.charset.StandardCharsets;
import java.util.BitSet;
import java.util.HashMap;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * Which of a benchmark's prompts were answered, by their ids of the form {@code NAME-NUMBER}: a bit
 * for each. For one thread.
 */
final class Answers {
  private final Map<String, BitSet> seen = new HashMap<>();
  private long records;
  private long prompts;

  /** Takes the key of a completion, which is the prompt's id. */
  void take(byte @Nullable [] key) {
    records++;
    String id = key == null ? "" : new String(key, StandardCharsets.UTF_8);
    int dash = id.lastIndexOf('-');
    int number;
    try {
      number = Integer.parseUnsignedInt(id.substring(dash + 1));
    } catch (NumberFormatException e) {
      return; // No prompt of ours: it counts as one record too many.
    }
    BitSet bits = seen.computeIfAbsent(id.substring(0, dash + 1), name -> new BitSet());
    if (number >= 0 && !bits.get(number)) {
      bits.set(number);
      prompts++;
    }
  }

  /** Prompts that were answered, however often. */
  long prompts() {
    return prompts;
  }

  /** Whether each of so many prompts was answered, and none twice. */
  boolean once(long sent) {
    return prompts == sent && records == sent;
  }

  /** How it went, in words. */
  String summary(long sent) {
    return once(sent)
        ? "each answered once"
        : "%d sent, %d answered, %d of the answers again"
            .formatted(sent, prompts, records - prompts);
  }
}
