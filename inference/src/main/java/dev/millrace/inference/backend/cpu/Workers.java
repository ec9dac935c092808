package dev.millrace.inference.backend.cpu;

import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.locks.LockSupport;
import org.jspecify.annotations.Nullable;

/**
 * A fixed set of threads that share each operation out by a static split. The calling thread is
 * worker 0; the others wait for the next operation, first awake (a step has hundreds of operations,
 * and waking a thread costs as much as a small one), then parked. One thread calls {@link #run} at
 * a time; whoever makes this closes it.
 */
final class Workers implements AutoCloseable {
  /** Part of an operation. */
  @FunctionalInterface
  interface Task {
    /**
     * @param worker 0 to workers - 1
     */
    void run(int worker, int workers);
  }

  private static final long SPIN_NANOS = 30_000;

  private final Worker[] others;
  private final AtomicInteger pending = new AtomicInteger();
  private volatile int epoch;
  private volatile @Nullable Thread waiting;
  private volatile @Nullable Throwable failure;
  private volatile boolean closed;
  // Published by the write of epoch.
  private Task task = (worker, workers) -> {};

  Workers(int threads) {
    others = new Worker[threads - 1];
    for (int i = 0; i < others.length; i++) {
      others[i] = new Worker(i + 1);
      others[i].start();
    }
  }

  int count() {
    return others.length + 1;
  }

  /** Runs the task once on each worker and returns when all have ended. */
  void run(Task work) {
    if (others.length == 0) {
      work.run(0, 1);
      return;
    }
    if (closed) {
      throw new IllegalStateException("the workers are closed");
    }
    task = work;
    failure = null;
    pending.set(others.length);
    epoch++;
    for (Worker worker : others) {
      if (worker.parked) {
        LockSupport.unpark(worker);
      }
    }
    runPart(work, 0);
    awaitOthers();
    Throwable thrown = failure;
    if (thrown instanceof RuntimeException e) {
      throw e;
    } else if (thrown instanceof Error e) {
      throw e;
    }
  }

  /** The part of {@code items} that a worker does, as [from, to); parts are whole grains. */
  static int from(int items, int grain, int worker, int workers) {
    long grains = (items + (long) grain - 1) / grain;
    return (int) Math.min(items, grains * worker / workers * grain);
  }

  private void runPart(Task work, int worker) {
    try {
      work.run(worker, count());
    } catch (RuntimeException | Error e) {
      failure = e;
    }
  }

  private void awaitOthers() {
    long end = System.nanoTime() + SPIN_NANOS;
    while (pending.get() != 0) {
      if (System.nanoTime() < end) {
        Thread.onSpinWait();
      } else {
        waiting = Thread.currentThread();
        while (pending.get() != 0) {
          LockSupport.park(this);
        }
        waiting = null;
      }
    }
  }

  @Override
  public void close() {
    closed = true;
    for (Worker worker : others) {
      LockSupport.unpark(worker);
    }
    boolean interrupted = false;
    for (Worker worker : others) {
      while (worker.isAlive()) {
        try {
          worker.join();
        } catch (InterruptedException e) {
          interrupted = true;
        }
      }
    }
    if (interrupted) {
      Thread.currentThread().interrupt();
    }
  }

  private final class Worker extends Thread {
    private final int index;
    volatile boolean parked;

    Worker(int index) {
      super("millrace-cpu-" + index);
      this.index = index;
      setDaemon(true);
    }

    @Override
    public void run() {
      int seen = 0;
      while (awaitEpochAfter(seen)) {
        seen++;
        runPart(task, index);
        if (pending.decrementAndGet() == 0) {
          Thread caller = waiting;
          if (caller != null) {
            LockSupport.unpark(caller);
          }
        }
      }
    }

    /** False when there will be no more. */
    private boolean awaitEpochAfter(int seen) {
      long end = System.nanoTime() + SPIN_NANOS;
      while (epoch == seen) {
        if (closed) {
          return false;
        }
        if (System.nanoTime() < end) {
          Thread.onSpinWait();
        } else {
          parked = true;
          while (epoch == seen && !closed) {
            LockSupport.park(Workers.this);
          }
          parked = false;
        }
      }
      return true;
    }
  }
}
