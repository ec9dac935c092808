package dev.millrace.inference.chat.jinja;

/**
 * How much one rendering may do.
 *
 * @param steps parts of the template run, and items and stretches of text handled
 * @param length characters of any one text, the output included
 * @param depth levels of nesting at run time, calls of macros included
 */
public record Limits(long steps, int length, int depth) {
  /** Enough for a prompt of four million tokens; a second or so at most. */
  public static final Limits DEFAULT = new Limits(20_000_000, 64 << 20, 500);
}
