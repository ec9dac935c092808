package dev.millrace.topology.chaos;

import dev.millrace.schemas.PromptEvent;
import java.util.Locale;
import org.jspecify.annotations.Nullable;

/**
 * One prompt of a run: what it is and what may become of it.
 *
 * @param number names it; its id is made of it
 * @param event what is sent; of poison, what was spoiled
 * @param atMs when to send it, milliseconds since the start
 * @param cancelAtMs when to cancel it; 0: never
 * @param deadlineMs when its deadline is; 0: never
 * @param againAtMs when to send it once more, with another text; 0: never
 * @param poison how its record is spoiled; null: not at all
 * @param schema id of the schema that its record claims, a later one than ours; 0: ours
 */
record Planned(
    int number,
    Kind kind,
    PromptEvent event,
    long atMs,
    long cancelAtMs,
    long deadlineMs,
    long againAtMs,
    @Nullable Poison poison,
    int schema) {

  /** What a prompt is sent for; rows of the fault matrix. */
  enum Kind {
    PLAIN,
    STREAMED,
    LARGE,
    CANCELLED,
    DEADLINE,
    TWICE,
    POISON;

    @Override
    public String toString() {
      return name().toLowerCase(Locale.ROOT);
    }
  }

  /** What spoils a prompt, and the reason that its dead letter must give. */
  enum Poison {
    GARBAGE("BAD_RECORD"),
    EMPTY("BAD_RECORD"),
    NO_VALUE("NO_VALUE"),
    WRONG_MAGIC("BAD_RECORD"),
    UNKNOWN_SCHEMA("BAD_RECORD"),
    CUT_OFF("BAD_RECORD"),
    TRAILING_BYTES("BAD_RECORD"),
    NOTHING_ASKED("INVALID_REQUEST"),
    OTHER_MODEL("MODEL_NOT_SERVED"),
    OVERSIZED("RECORD_TOO_LARGE");

    final String reason;

    Poison(String reason) {
      this.reason = reason;
    }
  }

  String id() {
    return id(number);
  }

  static String id(int number) {
    return "p-" + number;
  }

  /** The number in a prompt's id; -1 if it is none of ours. */
  static int number(String id) {
    if (!id.startsWith("p-")) {
      return -1;
    }
    try {
      return Integer.parseInt(id.substring(2));
    } catch (NumberFormatException e) {
      return -1;
    }
  }
}
