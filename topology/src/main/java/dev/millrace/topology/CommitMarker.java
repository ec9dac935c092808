package dev.millrace.topology;

import java.util.Map;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.kafka.streams.processor.StateStore;
import org.apache.kafka.streams.processor.StateStoreContext;
import org.apache.kafka.streams.state.StoreBuilder;

/**
 * A store that holds nothing: it is there to hear of commits. Under at-least-once Kafka Streams
 * calls back after it has flushed its producer and committed the offsets; so whatever was forwarded
 * before is acknowledged. Under exactly-once it does not call while running, and need not.
 *
 * <p>It is also called during restoration, by another thread, and while a task closes after a
 * failed flush. Readers therefore compare counts, and act only from a running task.
 */
final class CommitMarker implements StateStore {
  static final String NAME = "commits";

  private final AtomicLong commits = new AtomicLong();
  private volatile boolean open;

  /** Commits so far. */
  long commits() {
    return commits.get();
  }

  /** Kafka Streams has committed. */
  void committed() {
    commits.incrementAndGet();
  }

  @Override
  public String name() {
    return NAME;
  }

  @Override
  public void init(StateStoreContext context, StateStore root) {
    context.register(root, (key, value) -> {}, this::committed);
    open = true;
  }

  @Override
  public void close() {
    open = false;
  }

  @Override
  public boolean persistent() {
    return false;
  }

  @Override
  public boolean isOpen() {
    return open;
  }

  static StoreBuilder<CommitMarker> builder() {
    return new Builder();
  }

  private static final class Builder implements StoreBuilder<CommitMarker> {
    @Override
    public StoreBuilder<CommitMarker> withCachingEnabled() {
      return this;
    }

    @Override
    public StoreBuilder<CommitMarker> withCachingDisabled() {
      return this;
    }

    @Override
    public StoreBuilder<CommitMarker> withLoggingEnabled(Map<String, String> config) {
      throw new UnsupportedOperationException(NAME + " holds nothing to log");
    }

    @Override
    public StoreBuilder<CommitMarker> withLoggingDisabled() {
      return this;
    }

    @Override
    public CommitMarker build() {
      return new CommitMarker();
    }

    @Override
    public Map<String, String> logConfig() {
      return Map.of();
    }

    @Override
    public boolean loggingEnabled() {
      return false;
    }

    @Override
    public String name() {
      return NAME;
    }
  }
}
