package dev.millrace.topology;

/** Text from outside as it may stand in a log line, or on a terminal. */
public final class Printable {
  /** Under this name a log line's context (MDC) holds the prompt that it is about. */
  static final String LOG_KEY = "prompt";

  private static final int LONGEST = 300;

  private Printable() {}

  /**
   * The text without control characters, with which it could forge lines of its own, and cut where
   * it is long.
   */
  public static String of(String text) {
    return text.length() <= LONGEST ? line(text) : line(text.substring(0, LONGEST)) + '…';
  }

  /** The whole text without them. */
  public static String line(String text) {
    for (int i = 0; i < text.length(); i++) {
      if (breaks(text.charAt(i))) {
        return without(text);
      }
    }
    return text;
  }

  private static String without(String text) {
    StringBuilder out = new StringBuilder(text.length());
    for (int i = 0; i < text.length(); i++) {
      char c = text.charAt(i);
      out.append(breaks(c) ? ' ' : c);
    }
    return out.toString();
  }

  private static boolean breaks(char c) {
    return Character.isISOControl(c) || c == '\u2028' || c == '\u2029';
  }
}
