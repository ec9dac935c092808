package dev.millrace.inference.engine;

/** A step whose results are lost. */
public final class StepFailedException extends Exception {
  private static final long serialVersionUID = 1L;

  private final boolean fatal;

  /**
   * @param fatal the device can run nothing more: the process must end
   */
  public StepFailedException(String message, Throwable cause, boolean fatal) {
    super(message, cause);
    this.fatal = fatal;
  }

  public boolean fatal() {
    return fatal;
  }
}
