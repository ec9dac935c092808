package dev.millrace.inference.api;

import java.util.function.Consumer;
import org.jspecify.annotations.Nullable;

/**
 * A loaded, warm model that answers many requests at once. Whoever made it closes it; closing ends
 * each open generation with {@link GenerateEvent.Failure#CLOSED}.
 */
public interface Generator extends AutoCloseable {

  /** The name that the model goes by. */
  String model();

  /**
   * What requests of this model should use where their sender leaves it open: temperature, top_p
   * and top_k of its generation_config. Greedy unless the model says otherwise.
   */
  default SamplingParams samplingDefaults() {
    return SamplingParams.greedy(1);
  }

  /**
   * Takes a request. Never blocks and never throws for what is in the request: a bad one ends in
   * {@link GenerateEvent.Failed}. Thread-safe.
   *
   * @param listener gets the events in order, one at a time, on a thread of the generator; it must
   *     return quickly, and what it throws is logged and dropped
   */
  Generation submit(GenerateRequest request, Consumer<GenerateEvent> listener);

  Status status();

  /** What has been done since the start; zeros where nobody counts. */
  default Counters counters() {
    return new Counters(0, 0, 0, 0, 0);
  }

  @Override
  void close();

  /**
   * Sums since the start. Over an interval {@code sequences / steps} is the size of a batch.
   *
   * @param tokens of all steps, prompt tokens and generated ones
   * @param sequences of all steps
   * @param preemptions requests that lost their memory and began again from their known tokens
   */
  record Counters(long steps, long tokens, long sequences, long failedSteps, long preemptions) {}

  /** A request under way. */
  interface Generation {
    /**
     * Asks it to end with {@link FinishReason#CANCELLED}. Thread-safe; nothing happens where it has
     * ended already.
     */
    void cancel();

    /**
     * Lets it come to so many tokens, resumed ones included; less than was allowed before changes
     * nothing. Until then it waits, and keeps its memory unless others that have something to do
     * need it: then it goes on later from its known tokens. Others may have to wait for that
     * memory, so whoever allows tokens does not wait for another prompt's before. Thread-safe.
     */
    void allow(int tokens);
  }

  /**
   * A snapshot for gates, metrics and health.
   *
   * @param waitingTokens prompt tokens not yet computed, of waiting and running requests
   * @param runningTokens tokens of running requests whose keys and values are held
   * @param kvUse share of the KV blocks in use, 0 to 1
   * @param lastStepNanos {@link System#nanoTime()} of the end of the last step, or later where
   *     there was nothing to do, or steps began again after a rest; where text work waits, of the
   *     end of the last of that if it is earlier: long ago means that something hangs, or that all
   *     that runs is held
   * @param held the running requests that have all the tokens they were allowed; null if none
   * @param generated tokens since the start
   * @param failure why no request can succeed any more, or null
   */
  record Status(
      int waiting,
      int running,
      long waitingTokens,
      long runningTokens,
      double kvUse,
      long lastStepNanos,
      @Nullable Held held,
      long generated,
      @Nullable String failure) {}

  /**
   * Requests that wait for {@link Generation#allow}.
   *
   * @param sinceNanos {@link System#nanoTime()} of when the one that has waited longest began to
   */
  record Held(int requests, long sinceNanos) {}
}
