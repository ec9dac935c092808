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

  public RegistryUnavailableException(String message, @Nullable Throwable cause) {
    super(message, cause);
  }
}
