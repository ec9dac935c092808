package dev.millrace.inference.engine;

import dev.millrace.inference.api.GenerateEvent.Failure;
import org.jspecify.annotations.Nullable;

/** Which requests an engine can serve on its runner. For any thread. */
final class RequestCheck {
  private final Runner.Info info;
  private final int maxContext;

  RequestCheck(Runner.Info info) {
    this.info = info;
    this.maxContext =
        (int) Math.min(info.maxContext(), (long) info.blocks() * info.blockSize() + 1);
  }

  /** See {@link Engine#maxContext}. */
  int maxContext() {
    return maxContext;
  }

  /**
   * What to say of a prompt that has {@link #maxContext} tokens or more.
   *
   * @param length how many it has
   */
  String tooLong(String length) {
    return "the prompt has "
        + length
        + " tokens; "
        + (maxContext < info.maxContext()
            ? "the KV memory holds " + (maxContext - 1) + " (the model would take more)"
            : "the model's context is " + maxContext + ", one of which is to be generated");
  }

  /**
   * Why it is refused; null if it is not. For the submitter's thread: looking at a long prompt must
   * not hold up a step.
   */
  Sequence.@Nullable Rejection rejection(TokenRequest request) {
    int length = request.prompt().length;
    if (length == 0) {
      return new Sequence.Rejection(Failure.INVALID_REQUEST, "the prompt has no tokens");
    }
    if (length >= maxContext) {
      return new Sequence.Rejection(Failure.PROMPT_TOO_LONG, tooLong(Integer.toString(length)));
    }
    String problem = outside("prompt", request.prompt());
    problem = problem == null ? outside("resume", request.resume()) : problem;
    return problem == null ? null : new Sequence.Rejection(Failure.INVALID_REQUEST, problem);
  }

  private @Nullable String outside(String name, int[] tokens) {
    for (int i = 0; i < tokens.length; i++) {
      if (tokens[i] < 0 || tokens[i] >= info.vocabSize()) {
        return String.format(
            "%s[%d] is %d, tokens of this model are 0 to %d",
            name, i, tokens[i], info.vocabSize() - 1);
      }
    }
    return null;
  }
}
