package dev.millrace.topology;

/** Text from outside as it may stand in a log line. */
final class Printable {
  /** Under this name a log line's context (MDC) holds the prompt that it is about. */
  static final String LOG_KEY = "prompt";

  private static final int LONGEST = 300;

  private Printable() {}

  /**
   * The text without control characters, with which it could forge lines of its own, and cut where
   * it is long.
   */
  static String of(String text) {
    StringBuilder out = new StringBuilder(Math.min(text.length(), LONGEST) + 1);
    for (int i = 0; i < text.length() && i < LONGEST; i++) {
      char c = text.charAt(i);
      out.append(Character.isISOControl(c) || c == '\u2028' || c == '\u2029' ? ' ' : c);
    }
    if (text.length() > LONGEST) {
      out.append('…');
    }
    return out.toString();
  }
}
