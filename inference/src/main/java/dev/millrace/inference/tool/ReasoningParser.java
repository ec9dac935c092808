package dev.millrace.inference.tool;

/**
 * Splits an answer into reasoning and content as it comes. Reasoning stands at the very beginning
 * between {@code <think>} and {@code </think>}, which are plain text of several tokens here, so
 * that text which could become a tag is held back. White space just inside and just behind the tags
 * belongs to them. Reasoning that is never closed is reasoning to the end; tags further on in the
 * answer are content.
 *
 * <p>What comes out does not depend on how the text is cut into pieces. For one answer and one
 * thread.
 */
public final class ReasoningParser {
  private static final String OPEN = "<think>";
  private static final String CLOSE = "</think>";

  private enum State {
    BEFORE,
    INSIDE,
    BEHIND,
    CONTENT
  }

  private State state;

  /** White space that may belong to a tag. */
  private final StringBuilder spaces = new StringBuilder();

  /** How many characters of the tag that is looked for the text ends with. */
  private int matched;

  private final StringBuilder reasoning = new StringBuilder();
  private final StringBuilder content = new StringBuilder();
  private boolean reasoned;

  /**
   * New text of both kinds.
   *
   * @param reasoning empty if there is none
   * @param content empty if there is none
   */
  public record Split(String reasoning, String content) {}

  /**
   * @param inside the prompt has opened the reasoning already
   */
  public ReasoningParser(boolean inside) {
    state = inside ? State.INSIDE : State.BEFORE;
  }

  /** Whether the answer's text up to here ends within reasoning. */
  public boolean inside() {
    return state == State.INSIDE;
  }

  /** Takes the next text and returns what is certain now. */
  public Split append(String text) {
    for (int i = 0; i < text.length(); i++) {
      take(text.charAt(i));
    }
    return split();
  }

  /** Ends the answer: what was held back is what it looks like. */
  public Split finish() {
    if (state == State.BEFORE) {
      content.append(spaces).append(OPEN, 0, matched);
    } else if (state == State.INSIDE && matched > 0) {
      reason(CLOSE.substring(0, matched));
    }
    spaces.setLength(0);
    matched = 0;
    return split();
  }

  private Split split() {
    Split split = new Split(reasoning.toString(), content.toString());
    reasoning.setLength(0);
    content.setLength(0);
    return split;
  }

  private void take(char c) {
    switch (state) {
      case BEFORE -> before(c);
      case INSIDE -> inside(c);
      case BEHIND -> {
        if (!Character.isWhitespace(c)) {
          state = State.CONTENT;
          content.append(c);
        }
      }
      case CONTENT -> content.append(c);
    }
  }

  private void before(char c) {
    if (matched == 0 && Character.isWhitespace(c)) {
      spaces.append(c);
    } else if (c != OPEN.charAt(matched)) {
      content.append(spaces).append(OPEN, 0, matched).append(c);
      next(State.CONTENT);
    } else if (++matched == OPEN.length()) {
      next(State.INSIDE);
    }
  }

  private void inside(char c) {
    if (c == CLOSE.charAt(matched)) {
      if (++matched == CLOSE.length()) {
        next(State.BEHIND);
      }
      return;
    }
    if (matched > 0) {
      reason(CLOSE.substring(0, matched));
      matched = 0;
      // The first character of the tag is nowhere else in it, so only a new tag can begin here.
      inside(c);
    } else if (Character.isWhitespace(c)) {
      spaces.append(c);
    } else {
      reason(String.valueOf(c));
    }
  }

  private void next(State next) {
    state = next;
    spaces.setLength(0);
    matched = 0;
  }

  /** Adds reasoning, and the white space before it unless it is the first. */
  private void reason(String text) {
    if (reasoned) {
      reasoning.append(spaces);
    }
    spaces.setLength(0);
    reasoned = true;
    reasoning.append(text);
  }
}
