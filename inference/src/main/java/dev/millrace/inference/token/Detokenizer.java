package dev.millrace.inference.token;

import java.nio.ByteBuffer;
import java.nio.CharBuffer;
import java.nio.charset.CharsetDecoder;
import java.nio.charset.CodingErrorAction;
import java.nio.charset.StandardCharsets;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * Turns the tokens of one answer into text as they come. Never gives out half a character: the
 * bytes of one that is not complete wait for the next token, and turn into U+FFFD only when it is
 * clear that no character comes of them. Special tokens add no text.
 *
 * <p>Text that could be the beginning of a stop string is held back as well. The stop string that
 * is complete first ends the answer, and of two that end together the longer; this does not depend
 * on how the text is cut into tokens. The text before it is the answer's.
 *
 * <p>For one answer and one thread at a time.
 */
public final class Detokenizer {
  private final Tokenizer tokenizer;
  private final CharsetDecoder utf8 =
      StandardCharsets.UTF_8
          .newDecoder()
          .onMalformedInput(CodingErrorAction.REPLACE)
          .onUnmappableCharacter(CodingErrorAction.REPLACE);

  /** Bytes read but not decoded yet: an incomplete character, at most three. */
  private ByteBuffer pending = ByteBuffer.allocate(64);

  private final StopString[] stops;
  private final StringBuilder held = new StringBuilder();
  private @Nullable String stoppedBy;
  private boolean finished;

  /**
   * @param stop strings that end the answer, none of them empty
   */
  public Detokenizer(Tokenizer tokenizer, List<String> stop) {
    this.tokenizer = tokenizer;
    this.stops = stop.stream().map(StopString::new).toArray(StopString[]::new);
  }

  /**
   * Takes the next token and returns the text that is certain now; empty after a stop string.
   *
   * @throws IllegalStateException after {@link #finish()}
   */
  public String append(int token) {
    if (finished) {
      throw new IllegalStateException("the answer was finished");
    }
    byte[] bytes = tokenizer.bytes(token);
    if (pending.remaining() < bytes.length) {
      pending.flip();
      pending = ByteBuffer.allocate(pending.remaining() + 2 * bytes.length).put(pending);
    }
    pending.put(bytes).flip();
    CharBuffer chars = CharBuffer.allocate(pending.remaining() + 4);
    utf8.decode(pending, chars, false);
    pending.compact();
    return release(chars.flip());
  }

  /**
   * Ends the answer: returns the text that was still held back, an incomplete character as U+FFFD.
   */
  public String finish() {
    if (finished) {
      return "";
    }
    CharBuffer chars = CharBuffer.allocate(pending.position() + 4);
    utf8.decode(pending.flip(), chars, true);
    utf8.flush(chars);
    String text = release(chars.flip()) + held;
    held.setLength(0);
    finished = true;
    return text;
  }

  /** The stop string that ended the answer, or null. */
  public @Nullable String stoppedBy() {
    return stoppedBy;
  }

  private String release(CharBuffer text) {
    if (stoppedBy != null) {
      return "";
    }
    while (text.hasRemaining()) {
      char c = text.get();
      held.append(c);
      for (StopString stop : stops) {
        if (stop.completes(c) && (stoppedBy == null || stop.text.length() > stoppedBy.length())) {
          stoppedBy = stop.text;
        }
      }
      if (stoppedBy != null) {
        String before = held.substring(0, held.length() - stoppedBy.length());
        held.setLength(0);
        return before;
      }
    }
    int back = 0;
    for (StopString stop : stops) {
      back = Math.max(back, stop.matched);
    }
    String certain = held.substring(0, held.length() - back);
    held.delete(0, certain.length());
    return certain;
  }

  /** Looks for one stop string, character by character (Knuth, Morris and Pratt). */
  private static final class StopString {
    final String text;

    /** [length] how much is still matched where the character after i + 1 of them does not fit. */
    private final int[] fallback;

    /** How many characters of the stop string the text ends with. */
    int matched;

    StopString(String text) {
      this.text = text;
      this.fallback = new int[text.length()];
      for (int i = 1, k = 0; i < text.length(); i++) {
        while (k > 0 && text.charAt(i) != text.charAt(k)) {
          k = fallback[k - 1];
        }
        if (text.charAt(i) == text.charAt(k)) {
          k++;
        }
        fallback[i] = k;
      }
    }

    boolean completes(char c) {
      while (matched > 0 && text.charAt(matched) != c) {
        matched = fallback[matched - 1];
      }
      if (text.charAt(matched) == c) {
        matched++;
      }
      return matched == text.length();
    }
  }
}
