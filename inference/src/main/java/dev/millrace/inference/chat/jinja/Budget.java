package dev.millrace.inference.chat.jinja;

/** What one rendering may still do. For one thread. */
final class Budget {
  /** A stretch of text of this length counts as one step. */
  private static final int STRETCH = 64;

  private final Limits limits;
  private long steps;
  private int depth;

  Budget(Limits limits) {
    this.limits = limits;
  }

  void step() {
    spend(1);
  }

  /** Counts the handling of n items. */
  void spend(long n) {
    steps += n;
    if (steps > limits.steps()) {
      throw new TemplateException("the template takes more than " + limits.steps() + " steps");
    }
  }

  /** Counts the handling of a text, and checks its length before it is made. */
  void text(long length) {
    checkLength(length);
    spend(1 + length / STRETCH);
  }

  void checkLength(long length) {
    if (length > limits.length()) {
      throw new TemplateException(
          "the template makes a text of more than " + limits.length() + " characters");
    }
  }

  void enter() {
    if (++depth > limits.depth()) {
      throw new TemplateException("the template nests deeper than " + limits.depth() + " levels");
    }
  }

  void leave() {
    depth--;
  }
}
