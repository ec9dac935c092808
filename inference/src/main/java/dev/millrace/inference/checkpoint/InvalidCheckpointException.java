package dev.millrace.inference.checkpoint;

/**
 * A checkpoint that cannot be used as it is. The message names the file and, where there is one,
 * the tensor or the key, says what was found and what was expected, and what to do about it.
 */
public final class InvalidCheckpointException extends RuntimeException {
  private static final long serialVersionUID = 1L;

  public InvalidCheckpointException(String message) {
    super(message);
  }

  public InvalidCheckpointException(String message, Throwable cause) {
    super(message, cause);
  }
}
