package dev.millrace.schemas;

import org.apache.kafka.common.errors.SerializationException;
import org.jspecify.annotations.Nullable;

/**
 * The registry could not be asked, or refused what it was asked: it is down, slow, overloaded, does
 * not accept the credentials, or does not accept one of our schemas. The record is not at fault, so
 * the caller keeps it and tries again.
 */
public final class RegistryUnavailableException extends SerializationException {
  private static final long serialVersionUID = 1L;

  private final boolean answered;

  public RegistryUnavailableException(String message, @Nullable Throwable cause) {
    this(message, cause, false);
  }

  private RegistryUnavailableException(
      String message, @Nullable Throwable cause, boolean answered) {
    super(message, cause);
    this.answered = answered;
  }

  /** The registry is there, but refuses this one thing. */
  static RegistryUnavailableException refused(String message, @Nullable Throwable cause) {
    return new RegistryUnavailableException(message, cause, true);
  }

  /** Whether the registry answered, so that it may well answer another question. */
  boolean answered() {
    return answered;
  }
}
