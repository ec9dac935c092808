package dev.millrace.inference.api;

/**
 * A request that can never succeed as it is; the message says what is wrong and what is allowed.
 */
public final class InvalidRequestException extends RuntimeException {
  private static final long serialVersionUID = 1L;

  public InvalidRequestException(String message) {
    super(message);
  }

  public InvalidRequestException(String message, Throwable cause) {
    super(message, cause);
  }
}
