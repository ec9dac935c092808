package dev.millrace.topology;

import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.Map;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.jspecify.annotations.Nullable;

/**
 * One incarnation of a task: made when the processor is initialised, dropped when it closes.
 * Belongs to the stream thread, except for {@link #closed}, which the generator's threads read.
 */
final class TaskState {
  static final long REGISTRY_RETRY_MS = 500;

  /** A commit holds the stream thread for a round trip to the broker. */
  private static final long COMMIT_ASK_MS = 50;

  final Services services;
  final ProcessorContext<byte[], byte[]> context;
  final InFlightStore store;
  final SeenIds seen;
  final EventCodecs codecs;
  final boolean exactlyOnce;

  /** Every accepted prompt that is not deleted yet, in the order in which they were read. */
  final Map<PromptKey, InFlightPrompt> prompts = new LinkedHashMap<>();

  private final Map<String, InFlightPrompt> byId = new HashMap<>();
  private final CommitMarker marker;

  /** Counts the owners that the task has had, this one included. */
  int term;

  /**
   * Count of commits when it was noted that this worker has the task; nothing is given to the
   * engine before that is durable, or a crash could go unseen.
   */
  long claimedAt = Long.MAX_VALUE;

  private boolean commitWanted;
  private long nextCommitAsk;

  /** The registry gave no answer when it was last asked. */
  boolean registryDown;

  /** When to ask it again, milliseconds since 1970. */
  long registryRetryAt;

  /** Offset of the last prompt's record that was read; -1 before the first. */
  long readTo = -1;

  /** No event of the generator counts any more. */
  volatile boolean closed;

  TaskState(Services services, ProcessorContext<byte[], byte[]> context) {
    this.services = services;
    this.context = context;
    this.store = new InFlightStore(context);
    this.seen = new SeenIds(context, services.config().dedup());
    this.marker = context.getStateStore(CommitMarker.NAME);
    this.codecs = services.codecs().forTask();
    this.exactlyOnce = services.config().exactlyOnce();
  }

  /** Commits so far: what was forwarded at a lower count is acknowledged. */
  long commits() {
    return exactlyOnce ? marker.flushes() : marker.commits();
  }

  /** Commits begun so far, under either guarantee. */
  long commitsBegun() {
    return marker.flushes();
  }

  /** Whether it is durable that this worker has the task. */
  boolean owned() {
    return commits() > claimedAt;
  }

  /** Hears of each commit under at-least-once, before the task can close; null: no more. */
  void onCommit(@Nullable Runnable hears) {
    marker.onCommit(hears);
  }

  /** Asks for a commit soon; many in a row are one. */
  void askForCommit() {
    commitWanted = true;
    if (now() >= nextCommitAsk) {
      nextCommitAsk = now() + COMMIT_ASK_MS;
      commitWanted = false;
      context.commit();
    }
  }

  /** Asks for what was not asked for yet, when it is time. */
  void askForWantedCommit() {
    if (commitWanted) {
      askForCommit();
    }
  }

  long now() {
    return context.currentSystemTimeMs();
  }

  @Nullable InFlightPrompt byId(String id) {
    return byId.get(id);
  }

  /** The prompt's id has become known. */
  void named(InFlightPrompt prompt) {
    String id = prompt.id();
    if (id != null) {
      byId.put(id, prompt);
    }
  }

  /** Another prompt may come under its id. */
  void unnamed(InFlightPrompt prompt) {
    String id = prompt.id();
    if (id != null) {
      byId.remove(id, prompt);
    }
  }

  /** Deletes a prompt for good. */
  void forget(InFlightPrompt prompt) {
    store.delete(prompt);
    prompts.remove(prompt.key);
    unnamed(prompt);
    services.gate().forget(prompt.bytes);
  }
}
