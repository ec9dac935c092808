package dev.millrace.topology;

/**
 * Something that a worker needs at its start is not there, and may be later: a broker that does not
 * answer. What no later start changes is a {@link ConfigException}.
 */
public final class StartException extends RuntimeException {
  private static final long serialVersionUID = 1L;

  StartException(String message, Throwable cause) {
    super(message, cause);
  }
}
