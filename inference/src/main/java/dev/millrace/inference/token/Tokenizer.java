package dev.millrace.inference.token;

import java.util.OptionalInt;

/**
 * Text to tokens and back. Safe for use by many threads. Whoever opened it closes it, after all
 * work with it has ended.
 *
 * <p>Two kinds of text are told apart, because a special token that a user spells out must not
 * become one: plain text, in which {@code <|eot_id|>} is ten characters and nothing more, and
 * marked text ({@link SpecialMarks}), in which a trusted template has put special tokens.
 */
public interface Tokenizer extends AutoCloseable {

  /** One above the largest token id. */
  int vocabSize();

  /** The marks that stand for special tokens in marked text. */
  SpecialMarks marks();

  /** Tokens of plain text, no special token among them. Nothing is added and nothing cut off. */
  default int[] encode(String text) {
    return encode(text, Integer.MAX_VALUE);
  }

  /**
   * As {@link #encode(String)}, but of a text that gives more than {@code most} tokens the rest is
   * not looked at: what comes back is then longer than {@code most}, and a beginning.
   */
  int[] encode(String text, int most);

  /** Tokens of marked text: each mark gives its special token, the stretches between are plain. */
  default int[] encodeMarked(String marked) {
    return encodeMarked(marked, Integer.MAX_VALUE);
  }

  /** Of marked text, with the bound of {@link #encode(String, int)}. */
  int[] encodeMarked(String marked, int most);

  /**
   * What a token adds to the text, as UTF-8 bytes, which may begin or end within a character. Empty
   * for a special token and for an id that the vocabulary does not have. The caller must not change
   * the array.
   */
  byte[] bytes(int token);

  /** The id of a special token, if the vocabulary has it. */
  OptionalInt special(String content);

  /** The token that a text begins with, if the model has one. */
  OptionalInt beginOfText();

  @Override
  void close();
}
