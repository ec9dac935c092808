package dev.millrace.inference.token;

import java.util.BitSet;
import java.util.function.Function;

/**
 * Finds places where a long text can be cut without any token changing: where the tokenizer begins
 * a new word anyway. What a word is depends on the tokenizer, so it is asked about a short stretch
 * around the place. A stretch may begin within a word; a place counts only some way into it, and
 * only where the kind of character changes, because where a run is cut by counting (three digits
 * each) depends on its beginning; and only if the words stay the same when the stretch is cut.
 *
 * <p>Where there is no such place for a while, as in a run of a hundred thousand equal characters,
 * the text is cut anywhere between two characters.
 */
final class TextCut {
  private static final int STRETCH = 512;
  private static final int INTO = 128;
  private static final int LEFT_OVER = 64;
  private static final int TRIES = 6;

  private TextCut() {}

  /**
   * A place to cut.
   *
   * @param end it is at most here, and not more than a few thousand characters before
   * @param words tells where in a text words begin
   */
  static int before(String text, int end, Function<String, BitSet> words) {
    int to = end;
    for (int i = 0; i < TRIES && to >= STRETCH; i++, to -= STRETCH - INTO - LEFT_OVER) {
      int from = boundary(text, to - STRETCH);
      String stretch = text.substring(from, boundary(text, to));
      BitSet begins = words.apply(stretch);
      for (int at = begins.previousSetBit(STRETCH - LEFT_OVER); at >= INTO; ) {
        if (kind(stretch, at - 1) != kind(stretch, at) && holds(stretch, at, begins, words)) {
          return from + at;
        }
        at = begins.previousSetBit(at - 1);
      }
    }
    return boundary(text, end);
  }

  /** Whether the words are the same in two texts as in one: some end where no text follows. */
  private static boolean holds(
      String stretch, int at, BitSet begins, Function<String, BitSet> words) {
    BitSet apart = words.apply(stretch.substring(0, at));
    apart.set(at);
    words.apply(stretch.substring(at)).stream().forEach(begin -> apart.set(at + begin));
    return apart.equals(begins);
  }

  /** The place itself, or the one before if it would cut a surrogate pair. */
  private static int boundary(String text, int at) {
    boolean within =
        at > 0
            && at < text.length()
            && Character.isLowSurrogate(text.charAt(at))
            && Character.isHighSurrogate(text.charAt(at - 1));
    return within ? at - 1 : at;
  }

  private static int kind(String text, int at) {
    char c = text.charAt(at);
    if (Character.isLetter(c)) {
      return 0;
    }
    if (Character.isDigit(c)) {
      return 1;
    }
    return Character.isWhitespace(c) ? 2 : 3;
  }
}
