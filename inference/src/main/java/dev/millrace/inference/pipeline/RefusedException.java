package dev.millrace.inference.pipeline;

import dev.millrace.inference.api.GenerateEvent.Failure;

/** A request that this model does not serve. */
final class RefusedException extends RuntimeException {
  private static final long serialVersionUID = 1L;

  private final Failure failure;

  RefusedException(Failure failure, String message) {
    super(message);
    this.failure = failure;
  }

  Failure failure() {
    return failure;
  }
}
