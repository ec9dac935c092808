package dev.millrace.topology;

import dev.millrace.inference.api.Generator;
import java.time.Duration;

/**
 * One worker: a generator behind a Kafka Streams topology. Whoever made the generator closes it,
 * after the worker.
 */
public final class Worker implements AutoCloseable {
  /** Where a worker stands; it never goes back. */
  public enum State {
    CREATED,
    STARTING,
    RUNNING,
    DRAINING,
    STOPPED,
    FAILED
  }

  private final WorkerConfig config;
  private final Generator generator;
  private volatile State state = State.CREATED;

  public Worker(WorkerConfig config, Generator generator) {
    this.config = config;
    this.generator = generator;
  }

  /**
   * Checks the topics, joins the group and returns; prompts are answered from then on.
   *
   * @throws ConfigException if the broker, the topics or the settings do not allow it
   */
  public void start() {
    state = State.STARTING;
    throw new UnsupportedOperationException(
        "the topology of "
            + config.applicationId()
            + " for "
            + generator.model()
            + " is not built");
  }

  public State state() {
    return state;
  }

  /** Stops reading, goes on with what was begun until the grace time is over, saves, and leaves. */
  public boolean close(Duration grace) {
    state = State.STOPPED;
    return !grace.isNegative();
  }

  @Override
  public void close() {
    close(config.drainGrace());
  }
}
