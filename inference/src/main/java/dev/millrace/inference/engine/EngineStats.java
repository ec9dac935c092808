package dev.millrace.inference.engine;

import dev.millrace.inference.api.Generator;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;
import org.jspecify.annotations.Nullable;

/**
 * What an {@link Engine} shows of itself. The engine thread writes it, but for what is submitted;
 * any thread reads it.
 */
final class EngineStats {
  // Sequences in the inbox count as waiting.
  private final AtomicInteger inboxCount = new AtomicInteger();
  private final AtomicLong inboxTokens = new AtomicLong();
  private int takenCount;
  private long takenTokens;
  private volatile int waiting;
  private volatile int running;
  private volatile long uncomputedTokens;
  private volatile long computedTokens;
  private volatile double kvUse;
  private volatile long generatedTokens;
  private volatile long lastStepNanos = System.nanoTime();
  private volatile Generator.@Nullable Held held;
  private volatile long failedSteps;
  private volatile long preemptions;

  /** A sequence comes into the inbox. Any thread's. */
  void submitted(Sequence sequence) {
    inboxCount.incrementAndGet();
    inboxTokens.addAndGet(sequence.length());
  }

  /** The engine thread has it, and counts it with the next {@link #publish}. */
  void taken(Sequence sequence) {
    takenCount++;
    takenTokens += sequence.length();
  }

  /** It leaves the inbox without having been taken in. */
  void dropped(Sequence sequence) {
    inboxCount.decrementAndGet();
    inboxTokens.addAndGet(-sequence.length());
  }

  /** The engine gets on, or has nothing to do. */
  void alive() {
    lastStepNanos = System.nanoTime();
  }

  /** Whether there was nothing to do at the last {@link #publish}. */
  boolean nothingToDo() {
    return waiting == 0 && running == 0;
  }

  void publish(Scheduler scheduler, double used, long generated, long failed) {
    waiting = scheduler.waiting();
    running = scheduler.running();
    held = scheduler.held();
    uncomputedTokens = scheduler.uncomputedTokens();
    computedTokens = scheduler.computedTokens();
    kvUse = used;
    failedSteps = failed;
    preemptions = scheduler.preemptions();
    generatedTokens = generated;
    // After the above, so that a sequence on its way in is counted twice rather than not at all.
    inboxCount.addAndGet(-takenCount);
    inboxTokens.addAndGet(-takenTokens);
    takenCount = 0;
    takenTokens = 0;
  }

  Generator.Status status(@Nullable String failure) {
    return new Generator.Status(
        inboxCount.get() + waiting,
        running,
        inboxTokens.get() + uncomputedTokens,
        computedTokens,
        kvUse,
        lastStepNanos,
        held,
        generatedTokens,
        failure);
  }

  Generator.Counters counters(Engine.Work work) {
    return new Generator.Counters(
        work.steps(), work.tokens(), work.members(), failedSteps, preemptions);
  }
}
