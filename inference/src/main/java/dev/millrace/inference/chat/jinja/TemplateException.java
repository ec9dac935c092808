package dev.millrace.inference.chat.jinja;

/**
 * A template that cannot be read, or that could not be rendered with the values it was given, or
 * that gave up by {@code raise_exception}. The message names the line where it is known.
 */
public final class TemplateException extends RuntimeException {
  private static final long serialVersionUID = 1L;

  private final String reason;
  private final int line;

  /** An error in a place that is not known yet. */
  TemplateException(String reason) {
    this(reason, 0);
  }

  /**
   * @param line from 1, or 0 if it is not known
   */
  TemplateException(String reason, int line) {
    super(line == 0 ? reason : "template line " + line + ": " + reason);
    this.reason = reason;
    this.line = line;
  }

  /** What is wrong, without the line. */
  public String reason() {
    return reason;
  }

  /** The template's line, from 1; 0 if it is not known. */
  public int line() {
    return line;
  }

  TemplateException at(int where) {
    if (line != 0) {
      return this;
    }
    TemplateException located = new TemplateException(reason, where);
    located.setStackTrace(getStackTrace());
    return located;
  }
}
