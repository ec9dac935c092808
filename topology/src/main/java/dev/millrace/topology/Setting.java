package dev.millrace.topology;

import java.time.Duration;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.Locale;
import java.util.Map;

/**
 * One key of the worker's properties file.
 *
 * @param name as it stands in the file
 * @param standard the value where the file gives none; empty where there is none
 * @param unit what its value is
 * @param doc one sentence for people
 */
public record Setting(String name, String standard, Unit unit, String doc) {

  /** What a setting's value is, as the reference says it. */
  public enum Unit {
    TEXT("text"),
    COUNT("count"),
    NUMBER("number"),
    FLAG("true or false"),
    PROMPTS("prompts"),
    TOKENS("tokens"),
    BYTES("bytes"),
    TIME("time");

    private final String label;

    Unit(String label) {
      this.label = label;
    }
  }

  /** Its line in the reference, a row of a Markdown table. */
  String row() {
    String shown = standard.isEmpty() ? "" : "`" + standard + "`";
    return "| `%s` | %s | %s | %s |".formatted(name, shown, unit.label, doc);
  }

  /**
   * The environment variable that overrides it: {@code topics.prompts} is MILLRACE_TOPICS_PROMPTS.
   */
  public String variable() {
    return WorkerConfig.variable(name);
  }

  String text(Map<String, String> values) {
    return values.getOrDefault(name, standard).strip();
  }

  int integer(Map<String, String> values, int least, int most) {
    return (int) number(values, least, most);
  }

  long number(Map<String, String> values, long least, long most) {
    String text = text(values);
    try {
      long value = Long.parseLong(text.replace("_", ""));
      if (value >= least && value <= most) {
        return value;
      }
    } catch (NumberFormatException e) {
      // Falls through: the message below fits both cases.
    }
    throw new ConfigException(
        "%s is '%s': it must be a whole number from %d to %d".formatted(name, text, least, most));
  }

  /** Bytes: a number with an optional k, m or g (powers of 1024). */
  long bytes(Map<String, String> values, long least, long most) {
    String text = text(values).toLowerCase(Locale.ROOT);
    int shift = text.endsWith("k") ? 10 : text.endsWith("m") ? 20 : text.endsWith("g") ? 30 : 0;
    String digits = shift == 0 ? text : text.substring(0, text.length() - 1);
    try {
      long value = Math.multiplyExact(Long.parseLong(digits.strip()), 1L << shift);
      if (value >= least && value <= most) {
        return value;
      }
    } catch (NumberFormatException | ArithmeticException e) {
      // Falls through: the message below fits both cases.
    }
    throw new ConfigException(
        "%s is '%s': it must be %d to %d bytes, for example 512k or 32m"
            .formatted(name, text, least, most));
  }

  /** A duration such as 500ms, 20s, 5m or 1h. */
  Duration duration(Map<String, String> values, Duration most) {
    String text = text(values).toLowerCase(Locale.ROOT);
    int unit = 0;
    while (unit < text.length() && Character.isDigit(text.charAt(unit))) {
      unit++;
    }
    long millis =
        switch (text.substring(unit).strip()) {
          case "ms" -> 1;
          case "s" -> 1_000;
          case "m" -> 60_000;
          case "h" -> 3_600_000;
          case "d" -> 86_400_000;
          default -> -1;
        };
    try {
      if (millis > 0) {
        Duration value =
            Duration.ofMillis(Math.multiplyExact(Long.parseLong(text.substring(0, unit)), millis));
        if (value.compareTo(most) <= 0) {
          return value;
        }
      }
    } catch (NumberFormatException | ArithmeticException e) {
      // Falls through: the message below fits both cases.
    }
    throw new ConfigException(
        "%s is '%s': it must be a time such as 500ms, 20s, 5m or 1h, at most %ds"
            .formatted(name, text, most.toSeconds()));
  }

  boolean flag(Map<String, String> values) {
    String text = text(values);
    return switch (text.toLowerCase(Locale.ROOT)) {
      case "true" -> true;
      case "false" -> false;
      default -> throw new ConfigException(name + " is '" + text + "': it must be true or false");
    };
  }

  /** The known name that is closest to a misspelt one. */
  static String nearest(String unknown, List<String> known) {
    List<String> sorted = new ArrayList<>(known);
    sorted.sort(Comparator.comparingInt(name -> distance(unknown, name)));
    return sorted.getFirst();
  }

  /** Letters to change, add or take away to make one name the other. */
  static int distance(String a, String b) {
    int[] row = new int[b.length() + 1];
    for (int j = 0; j <= b.length(); j++) {
      row[j] = j;
    }
    for (int i = 1; i <= a.length(); i++) {
      int diagonal = row[0];
      row[0] = i;
      for (int j = 1; j <= b.length(); j++) {
        int substituted = diagonal + (a.charAt(i - 1) == b.charAt(j - 1) ? 0 : 1);
        diagonal = row[j];
        row[j] = Math.min(substituted, 1 + Math.min(row[j], row[j - 1]));
      }
    }
    return row[b.length()];
  }
}
