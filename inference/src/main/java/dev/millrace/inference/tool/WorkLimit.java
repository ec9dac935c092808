package dev.millrace.inference.tool;

/**
 * How much work one check may still do. Counted, not timed, so that the same input always ends the
 * same way. For one thread.
 */
final class WorkLimit {
  /** Looks at characters; well under a second's worth. */
  private static final int MOST = 5_000_000;

  /** What the library does around one look at a value, in looks at characters. */
  private static final int VALUE = 20;

  private int left = MOST;

  void spendValue() {
    spend(VALUE);
  }

  private void spend(int looks) {
    left -= looks;
    if (left < 0) {
      throw new ExceededException("checking against the schema takes too much work");
    }
  }

  /** Text that a pattern is matched with; each look at a character counts. */
  CharSequence counted(CharSequence text) {
    return new CharSequence() {
      @Override
      public int length() {
        return text.length();
      }

      @Override
      public char charAt(int index) {
        spend(1);
        return text.charAt(index);
      }

      @Override
      public CharSequence subSequence(int start, int end) {
        return counted(text.subSequence(start, end));
      }

      @Override
      public String toString() {
        return text.toString();
      }
    };
  }

  /** No answer within the limit. */
  static final class ExceededException extends RuntimeException {
    private static final long serialVersionUID = 1L;

    ExceededException(String message) {
      super(message);
    }
  }
}
