package dev.millrace.inference.backend;

import org.jspecify.annotations.Nullable;

/** A device that cannot be used, or has too little memory for what is wanted of it. */
public final class DeviceException extends RuntimeException {
  private static final long serialVersionUID = 1L;

  public DeviceException(String message) {
    this(message, null);
  }

  public DeviceException(String message, @Nullable Throwable cause) {
    super(message, cause);
  }
}
