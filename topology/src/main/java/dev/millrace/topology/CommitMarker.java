package dev.millrace.topology;

import java.util.Map;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.kafka.streams.processor.StateStore;
import org.apache.kafka.streams.processor.StateStoreContext;
import org.apache.kafka.streams.state.StoreBuilder;
import org.apache.kafka.streams.state.internals.CacheFlushListener;
import org.apache.kafka.streams.state.internals.CachedStateStore;
import org.jspecify.annotations.Nullable;

/**
 * A store that holds nothing: it is there to hear of commits. Under at-least-once Kafka Streams
 * calls back after it has flushed its producer and committed the offsets; so whatever was forwarded
 * before is acknowledged. It is also called during restoration, by another thread, and while a task
 * closes after a failed flush; but then the processor is not open, or has been closed before.
 *
 * <p>Under exactly-once it does not call back while running. There a commit is known from the flush
 * of caches that it begins with: a task that comes to run again after one has been through the
 * whole transaction, since it would have been closed otherwise.
 */
final class CommitMarker implements StateStore, CachedStateStore<Object, Object> {
  static final String NAME = "commits";

  private final AtomicLong commits = new AtomicLong();
  private final AtomicLong flushes = new AtomicLong();
  private volatile @Nullable Runnable listener;
  private volatile boolean open;

  /** Commits so far, under at-least-once. */
  long commits() {
    return commits.get();
  }

  /** Commits begun so far; for an open task that is not in the middle of one: ended as well. */
  long flushes() {
    return flushes.get();
  }

  /** Calls the listener after each commit from now on, on the stream thread; null: no more. */
  void onCommit(@Nullable Runnable hears) {
    listener = hears;
  }

  /** Kafka Streams has committed. */
  void committed() {
    commits.incrementAndGet();
    Runnable hears = listener;
    if (hears != null) {
      hears.run();
    }
  }

  @Override
  public void flushCache() {
    flushes.incrementAndGet();
  }

  @Override
  public void clearCache() {
    // There is nothing in it.
  }

  @Override
  public boolean setFlushListener(
      CacheFlushListener<Object, Object> flushListener, boolean sendOldValues) {
    return false;
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
