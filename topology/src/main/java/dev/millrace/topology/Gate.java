package dev.millrace.topology;

import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;

/**
 * Whether the worker reads more prompts. {@code process()} must never wait, so a full window closes
 * this gate instead, and the {@link GatedPartitions} of each consumer pause the prompts'
 * partitions. Shared by all tasks and threads of a worker; every method is safe for several
 * threads.
 */
final class Gate {
  private final WorkerConfig.Window window;
  private final AtomicInteger running = new AtomicInteger();
  private final AtomicInteger resting = new AtomicInteger();
  private final AtomicInteger kept = new AtomicInteger();
  private final Set<Object> stalled = ConcurrentHashMap.newKeySet();
  private final Map<Integer, Runnable> handOvers = new ConcurrentHashMap<>();
  private final AtomicInteger tasks = new AtomicInteger();
  private final AtomicInteger saved = new AtomicInteger();
  private final AtomicLong keptBytes = new AtomicLong();
  private final AtomicLong waitingTokens = new AtomicLong();
  private volatile boolean draining;
  private volatile boolean saving;

  Gate(WorkerConfig.Window window) {
    this.window = window;
  }

  boolean open() {
    return !draining
        && running.get() - resting.get() < window.prompts()
        && resting.get() < window.prompts()
        && keptBytes.get() < window.bytes()
        && (window.tokens() == 0 || waitingTokens.get() < window.tokens())
        && stalled.isEmpty();
  }

  /** Prompts that are begun and have no outcome yet. */
  int running() {
    return running.get();
  }

  /** Prompts that are kept: begun, or sent and not known to be durable. */
  int kept() {
    return kept.get();
  }

  /** Bytes of the records that these came in. */
  long keptBytes() {
    return keptBytes.get();
  }

  /** A prompt of so many bytes is kept. */
  void begin(long bytes) {
    running.incrementAndGet();
    kept.incrementAndGet();
    keptBytes.addAndGet(bytes);
  }

  /** A prompt that was begun waits for a later try: fresh ones may come in its place. */
  void rest() {
    resting.incrementAndGet();
  }

  /** It waits no more. */
  void wake() {
    resting.decrementAndGet();
  }

  /** A prompt has its outcome. */
  void end() {
    running.decrementAndGet();
  }

  /** A prompt that had its outcome is deleted. */
  void forget(long bytes) {
    kept.decrementAndGet();
    keptBytes.addAndGet(-bytes);
  }

  /** A task has gone, and what it kept with it. */
  void abandon(int stillRunning, int stillKept, long bytes) {
    running.addAndGet(-stillRunning);
    kept.addAndGet(-stillKept);
    keptBytes.addAndGet(-bytes);
  }

  void waitingTokens(long tokens) {
    waitingTokens.set(tokens);
  }

  /**
   * No more prompts until {@link #flows}: the registry gives a task no answer.
   *
   * @return whether that is news
   */
  boolean stall(Object task) {
    return stalled.add(task);
  }

  void flows(Object task) {
    stalled.remove(task);
  }

  boolean stalled() {
    return !stalled.isEmpty();
  }

  /** No more prompts at all: the worker is to stop. */
  void drain() {
    draining = true;
  }

  boolean draining() {
    return draining;
  }

  /** Asks every task to save the progress of what it has begun. */
  void save() {
    saving = true;
  }

  boolean saving() {
    return saving;
  }

  /**
   * A task has been opened.
   *
   * @param handOver to be called on the thread of the task when its partition is taken away in good
   *     order, before Kafka Streams commits for the last time
   */
  void taskOpened(int partition, Runnable handOver) {
    tasks.incrementAndGet();
    handOvers.put(partition, handOver);
  }

  /** These partitions are about to be taken away from the calling thread. */
  void handOver(Iterable<Integer> partitions) {
    for (int partition : partitions) {
      Runnable handOver = handOvers.get(partition);
      if (handOver != null) {
        handOver.run();
      }
    }
  }

  void taskClosed(int partition, Runnable handOver, boolean hadSaved) {
    tasks.decrementAndGet();
    // Another thread may have opened the task already.
    handOvers.remove(partition, handOver);
    if (hadSaved) {
      saved.decrementAndGet();
    }
  }

  void taskSaved() {
    saved.incrementAndGet();
  }

  boolean allSaved() {
    return saved.get() >= tasks.get();
  }
}
