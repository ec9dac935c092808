package dev.millrace.inference.engine;

import dev.millrace.inference.api.FinishReason;
import dev.millrace.inference.api.GenerateEvent;
import dev.millrace.inference.api.TokenLogprob;
import org.jspecify.annotations.Nullable;

/**
 * Hears of one sequence, on the engine thread: it must only hand over to another thread. What it
 * throws is logged and dropped. After {@link Engine#close} it hears on the submitter's thread.
 */
public interface TokenListener {

  /**
   * The sequence is about to be handed to the engine. Comes once, on the submitter's thread, before
   * any other call: whoever wants to abort from one of those has the handle by then.
   */
  default void onSubmitted(Engine.Handle handle) {}

  /**
   * The first prompt token is about to be computed. Comes at most once, and not at all for a
   * sequence that ends before that.
   *
   * @param cachedTokens prompt tokens taken from the prefix cache
   */
  void onStarted(int cachedTokens);

  /** A new token. A stop token that ends the sequence is not reported. */
  void onToken(int token, @Nullable TokenLogprob logprob);

  /** No more comes. {@link FinishReason#STOP}, LENGTH or CANCELLED. */
  void onFinished(FinishReason reason);

  /** No more comes: the sequence failed. */
  void onFailed(GenerateEvent.Failure failure, String message);
}
