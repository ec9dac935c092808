package dev.millrace.inference.engine;

import dev.millrace.inference.api.Generator;

/**
 * Runs many sequences at once on a {@link Runner}, on one thread of its own. Whoever made it closes
 * it, and then the runner.
 */
public final class Engine implements AutoCloseable {

  /** A submitted sequence, to {@link #abort} it by. */
  public interface Handle {}

  /** Starts the engine's thread. */
  public Engine(Runner runner, EngineConfig config) {
    throw new UnsupportedOperationException("the engine is not built yet");
  }

  /**
   * Takes a sequence. Never blocks; any number may wait. A request that cannot be served ends in
   * {@link TokenListener#onFailed}. Thread-safe.
   */
  public Handle submit(TokenRequest request, TokenListener listener) {
    throw new UnsupportedOperationException("the engine is not built yet");
  }

  /**
   * Ends a sequence with {@link dev.millrace.inference.api.FinishReason#CANCELLED}; nothing happens
   * if it has ended already. Thread-safe, returns at once.
   */
  public void abort(Handle handle) {
    throw new UnsupportedOperationException("the engine is not built yet");
  }

  /** A snapshot. Thread-safe. */
  public Generator.Status stats() {
    throw new UnsupportedOperationException("the engine is not built yet");
  }

  /**
   * Most tokens of a sequence, prompt and output: the model's context or what the KV blocks hold.
   */
  public int maxContext() {
    throw new UnsupportedOperationException("the engine is not built yet");
  }

  /**
   * Ends all sequences with {@link dev.millrace.inference.api.GenerateEvent.Failure#CLOSED}, waits
   * for the steps in flight and stops the thread.
   */
  @Override
  public void close() {
    throw new UnsupportedOperationException("the engine is not built yet");
  }
}
