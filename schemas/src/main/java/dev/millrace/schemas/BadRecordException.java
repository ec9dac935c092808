package dev.millrace.schemas;

import org.apache.kafka.common.errors.SerializationException;
import org.jspecify.annotations.Nullable;

/**
 * The record itself is at fault and stays so however often it is read: not in the registry's wire
 * format, written with an unknown or unreadable schema, or bytes that do not fit their schema. The
 * caller puts it aside as a dead letter.
 */
public final class BadRecordException extends SerializationException {
  private static final long serialVersionUID = 1L;

  public BadRecordException(String message) {
    super(message);
  }

  public BadRecordException(String message, @Nullable Throwable cause) {
    super(message, cause);
  }
}
