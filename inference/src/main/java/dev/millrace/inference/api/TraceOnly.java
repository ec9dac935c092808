package dev.millrace.inference.api;

/**
 * What log lines show of a throwable that has to do with a request: its class and where it came
 * from, and no message, since that may quote the prompt.
 */
public final class TraceOnly extends Exception {
  private static final long serialVersionUID = 1L;
  private static final int DEEPEST = 8;

  private TraceOnly(Throwable from, int depth) {
    super(
        from.getClass().getName(),
        from.getCause() == null || depth == DEEPEST
            ? null
            : new TraceOnly(from.getCause(), depth + 1),
        false,
        true);
    setStackTrace(from.getStackTrace());
  }

  /** The throwable and its causes, without their messages. */
  public static TraceOnly of(Throwable throwable) {
    return new TraceOnly(throwable, 0);
  }
}
