package dev.millrace.inference.pipeline;

import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.RejectedExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * The threads of text work: some encode prompts, each of the others serves the answers that were
 * given to it, so that the events of one answer are in order and a long prompt does not hold up
 * answers. Whoever made it closes it.
 */
final class TextThreads {
  /** One long prompt may take seconds; whoever stops the process waits for no more than this. */
  private static final long PATIENCE_NANOS = TimeUnit.SECONDS.toNanos(10);

  private final Lane encoders;
  private final List<Lane> answerers = new ArrayList<>();
  private final ThreadGroup group = new ThreadGroup("millrace-text");
  private final AtomicInteger next = new AtomicInteger();

  /** Threads that share one queue. */
  private static final class Lane {
    final ExecutorService executor;
    private final ThreadLocal<Boolean> own = new ThreadLocal<>();
    private final AtomicInteger unfinished = new AtomicInteger();
    private volatile long progress = System.nanoTime();

    Lane(ExecutorService executor) {
      this.executor = executor;
    }

    boolean run(Runnable task) {
      if (unfinished.get() == 0) {
        // Before the task counts, else it would look as old as the one before it.
        progress = System.nanoTime();
      }
      unfinished.incrementAndGet();
      try {
        executor.execute(
            () -> {
              own.set(true);
              try {
                task.run();
              } finally {
                finished();
              }
            });
        return true;
      } catch (RejectedExecutionException e) {
        finished();
        return false;
      }
    }

    private void finished() {
      progress = System.nanoTime();
      unfinished.decrementAndGet();
    }

    /** Whether it is one of these threads that asks. */
    boolean isOwn() {
      return own.get() != null;
    }

    long progress(long now) {
      return unfinished.get() == 0 ? now : progress;
    }
  }

  TextThreads(int encoding, int answering) {
    AtomicInteger number = new AtomicInteger();
    encoders =
        new Lane(
            Executors.newFixedThreadPool(
                encoding, task -> thread("millrace-encode-" + number.getAndIncrement(), task)));
    for (int i = 0; i < answering; i++) {
      String name = "millrace-answer-" + i;
      answerers.add(new Lane(Executors.newSingleThreadExecutor(task -> thread(name, task))));
    }
  }

  /** The thread for the next answer. */
  int choose() {
    return Math.floorMod(next.getAndIncrement(), answerers.size());
  }

  /** Runs an encoding task some time; false if these threads are closed. */
  boolean encode(Runnable task) {
    return encoders.run(task);
  }

  /** Runs a task on an answer's thread, after those before it; false if it is closed. */
  boolean answer(int thread, Runnable task) {
    return answerers.get(thread).run(task);
  }

  /**
   * When these threads last came on: the time now if no task waits or runs, else that of the end of
   * the last task of those that have had none for longest. Thread-safe.
   *
   * @param now {@link System#nanoTime()}
   */
  long progressNanos(long now) {
    long oldest = encoders.progress(now);
    for (Lane lane : answerers) {
      long progress = lane.progress(now);
      oldest = progress - oldest < 0 ? progress : oldest;
    }
    return oldest;
  }

  private Thread thread(String name, Runnable task) {
    Thread thread = new Thread(group, task, name);
    thread.setDaemon(true);
    return thread;
  }

  /**
   * Ends the threads when their tasks are done, and waits for that for a while; called on one of
   * them, for the others: an answer that is ended from here must not have a task that goes on.
   *
   * @return whether all have ended; one that has not is still in a task, and uses what that needs
   */
  boolean close() {
    List<Lane> all = new ArrayList<>(answerers);
    all.add(encoders);
    all.forEach(lane -> lane.executor.shutdown());
    long deadline = System.nanoTime() + PATIENCE_NANOS;
    boolean interrupted = false;
    boolean ended = true;
    for (Lane lane : all) {
      ExecutorService executor = lane.executor;
      while (!lane.isOwn() && !executor.isTerminated() && System.nanoTime() < deadline) {
        try {
          executor.awaitTermination(deadline - System.nanoTime(), TimeUnit.NANOSECONDS);
        } catch (InterruptedException e) {
          interrupted = true;
        }
      }
      ended &= executor.isTerminated();
    }
    if (interrupted) {
      Thread.currentThread().interrupt();
    }
    return ended;
  }
}
