package dev.millrace.topology;

import dev.millrace.topology.InFlightPrompt.State;
import java.time.Duration;
import java.util.HashSet;
import java.util.Set;
import java.util.UUID;
import org.apache.kafka.streams.processor.Cancellable;
import org.apache.kafka.streams.processor.PunctuationType;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.ProcessorSupplier;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.processor.api.RecordMetadata;
import org.apache.kafka.streams.state.StoreBuilder;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * The one processor of the topology: takes prompts and cancels in ({@link PromptIntake}), has them
 * answered ({@link PromptRuns}) and ends them ({@link PromptEndings}). It never waits for the
 * engine: results come with the punctuation every few milliseconds, or with the next record.
 *
 * <p>Kafka Streams initialises the same object again when it revives a task: everything lives in a
 * {@link TaskState} that is made new each time.
 */
final class PromptProcessor implements Processor<byte[], byte[], byte[], byte[]> {
  private static final Logger log = LoggerFactory.getLogger(PromptProcessor.class);

  /** How often results are taken. */
  static final Duration TICK = Duration.ofMillis(5);

  /** How often deadlines, saves and further tries are looked at. */
  private static final long SCAN_MS = 50;

  private static final long EXPIRE_MS = 1_000;

  private final Services services;
  private @Nullable Incarnation incarnation;

  PromptProcessor(Services services) {
    this.services = services;
  }

  /** Makes processors together with the stores that they need. */
  static ProcessorSupplier<byte[], byte[], byte[], byte[]> supplier(Services services) {
    return new ProcessorSupplier<>() {
      @Override
      public Processor<byte[], byte[], byte[], byte[]> get() {
        return new PromptProcessor(services);
      }

      @Override
      public Set<StoreBuilder<?>> stores() {
        return InFlightStore.builders();
      }
    };
  }

  @Override
  public void init(ProcessorContext<byte[], byte[]> context) {
    Incarnation made = new Incarnation(new TaskState(services, context));
    incarnation = made;
    made.ticking = context.schedule(TICK, PunctuationType.WALL_CLOCK_TIME, time -> made.tick());
  }

  @Override
  public void process(Record<byte[], byte[]> record) {
    if (incarnation == null) {
      throw new IllegalStateException("process() before init()");
    }
    incarnation.process(record);
  }

  @Override
  public void close() {
    if (incarnation != null) {
      incarnation.close();
      incarnation = null;
    }
  }

  /** The processor between one init() and the next close(). */
  private static final class Incarnation {
    private final TaskState task;
    private final Gate gate;
    private final String cancels;
    private final PromptEndings endings;
    private final PromptRuns runs;
    private final PromptIntake intake;
    private final Runnable handOver = this::handOver;
    private @Nullable Cancellable ticking;
    private boolean handedOver;
    private boolean restored;
    private boolean saved;
    private long savedAt;
    private boolean reportedSaved;
    private long commitsSeen;

    /** Commits begun when the last turn was taken: one since holds all that turns did. */
    private long turnAt;

    private long nextScan;
    private long nextExpiry;

    Incarnation(TaskState task) {
      this.task = task;
      this.gate = task.services.gate();
      this.cancels = task.services.config().topics().cancels();
      this.endings = new PromptEndings(task);
      this.runs = new PromptRuns(task, endings);
      this.intake = new PromptIntake(task, runs, endings);
      gate.taskOpened(partition(), handOver);
      if (!task.exactlyOnce) {
        task.onCommit(this::committed);
      }
    }

    private int partition() {
      return task.context.taskId().partition();
    }

    /**
     * After a commit, and before the task may be taken away: what was sent is acknowledged, so that
     * the next owner need not send it again.
     */
    private void committed() {
      if (restored && !task.closed) {
        endings.retire();
        task.seen.forgetRecords(task.readTo);
        task.seen.flush(task.now());
      }
    }

    /**
     * The task is taken away in good order. The commit that follows makes all tokens durable, and
     * that nothing has crashed.
     *
     * <p>Kafka Streams leaves that commit out where no turn was taken since the last one. What is
     * written then nobody commits: it would hold a transaction open that the next owner waits for,
     * or come after what that one writes. So nothing is: the tokens since are within what a save
     * may lack, and the next owner takes this for a crash, of which progress clears the prompts.
     */
    private void handOver() {
      if (!restored || task.closed || task.commitsBegun() > turnAt) {
        return;
      }
      try {
        runs.saveAll();
        claim(true);
      } catch (RuntimeException e) {
        // It only costs tokens; what is really wrong Kafka Streams meets with its own commit.
        log.warn("task {} could not save what it hands over", task.context.taskId(), e);
      }
    }

    private void claim(boolean givenUp) {
      handedOver = givenUp;
      task.claimedAt = givenUp ? Long.MAX_VALUE : task.commits();
      task.store.saveOwner(
          new InFlightStore.Owner(task.services.quarantine().worker(), givenUp, task.term));
      if (!givenUp) {
        task.askForCommit();
      }
    }

    /** Finds what an earlier owner of the task left. */
    private void restore() {
      task.seen.load();
      for (InFlightPrompt prompt : task.store.restore()) {
        task.prompts.put(prompt.key, prompt);
        gate.begin(prompt.bytes);
      }
      if (!task.prompts.isEmpty()) {
        log.info("task {} takes over {} prompts", task.context.taskId(), task.prompts.size());
        task.services.metrics().restored.increment(task.prompts.size());
      }
    }

    void process(Record<byte[], byte[]> record) {
      turnAt = task.commitsBegun();
      resume();
      RecordMetadata source =
          task.context
              .recordMetadata()
              .orElseThrow(() -> new IllegalStateException("a record without a source"));
      if (source.topic().equals(cancels)) {
        intake.cancel(record, source);
      } else {
        intake.prompt(record, source);
      }
      runs.drain();
      task.seen.flush(task.now());
    }

    void tick() {
      if (task.closed) {
        // Kafka Streams does not end the schedule of a task that it revives.
        return;
      }
      turnAt = task.commitsBegun();
      resume();
      endings.retire();
      runs.drain();
      long now = task.now();
      task.askForWantedCommit();
      if (handedOver && !gate.saving()) {
        // It stayed after all.
        claim(false);
      }
      if (task.commits() > commitsSeen) {
        commitsSeen = task.commits();
        if (task.owned()) {
          task.store.forgetEarlierOwners();
        }
        endings.retryWaitingForCommit();
        endings.leaveQuarantine();
        runs.startNoted();
        if (!gate.saving()) {
          runs.allowMore();
        }
      }
      if (now >= nextScan) {
        nextScan = now + SCAN_MS;
        runs.scan(now);
        runs.drain();
      }
      runs.sendChunks(now);
      if (task.registryDown && now >= task.registryRetryAt) {
        retryRegistry();
        // A registry that hangs must not have the stream thread for more than a part of its time.
        long took = task.now() - now;
        task.registryRetryAt = now + took + Math.max(TaskState.REGISTRY_RETRY_MS, 2 * took);
      }
      if (now >= nextExpiry) {
        nextExpiry = now + EXPIRE_MS;
        task.seen.expire(now);
      }
      task.seen.flush(now);
      saveIfAsked();
    }

    /** Goes on with what was restored, at the first chance: nothing may be sent before. */
    private void resume() {
      if (restored) {
        return;
      }
      restored = true;
      restore();
      task.store.deleteOrphans(new HashSet<>(task.prompts.keySet()));
      countCrash();
      for (InFlightPrompt prompt : task.prompts.values().toArray(new InFlightPrompt[0])) {
        Outcome outcome = prompt.outcome;
        if (outcome == null) {
          continue;
        }
        if (!outcome.answered().isEmpty()
            && task.seen.answered(SeenIds.Hash.of(outcome.answered()))) {
          // It was being deleted: its outcome is durable.
          endings.discard(prompt);
        } else {
          endings.sendAgain(prompt, outcome);
        }
      }
      intake.readKeptCancels();
      intake.readKept();
    }

    /**
     * An earlier owner that did not hand the task over has crashed, or was cut off, which looks the
     * same from here: this is held against those that it had given to its engine.
     */
    private void countCrash() {
      InFlightStore.Owner last = task.store.owner();
      UUID worker = task.services.quarantine().worker();
      int noted = last == null ? 0 : last.term();
      int lastTerm = Math.max(noted, task.store.lastTerm());
      task.term = lastTerm + 1;
      task.store.ownedIn(task.term);
      if (lastTerm > noted) {
        // An earlier version's note of who had it was written over by one that was cut off.
        runs.crashed(lastTerm);
      } else if (last != null && !last.handedOver() && !last.worker().equals(worker)) {
        runs.crashed(noted);
      }
      task.prompts.values().forEach(prompt -> prompt.alone = false);
      claim(false);
    }

    private void retryRegistry() {
      task.registryDown = false;
      endings.retryUnwritten();
      if (!task.registryDown) {
        intake.readKeptCancels();
        intake.readKept();
      }
      if (!task.registryDown) {
        log.info("task {}: the registry answers again", task.context.taskId());
        gate.flows(task);
      }
    }

    private void saveIfAsked() {
      if (!gate.saving()) {
        return;
      }
      if (!saved) {
        runs.saveAll();
        claim(true);
        task.context.commit();
        saved = true;
        savedAt = task.commits();
      }
      if (!reportedSaved && (task.exactlyOnce || task.commits() > savedAt)) {
        reportedSaved = true;
        gate.taskSaved();
      }
    }

    void close() {
      task.closed = true;
      task.onCommit(null);
      if (ticking != null) {
        ticking.cancel();
      }
      runs.cancelAll();
      int running = 0;
      long bytes = 0;
      for (InFlightPrompt prompt : task.prompts.values()) {
        running += prompt.state == State.SENT ? 0 : 1;
        bytes += prompt.bytes;
      }
      gate.abandon(running, task.prompts.size(), bytes);
      gate.flows(task);
      gate.taskClosed(partition(), handOver, reportedSaved);
      task.services.codecs().release(task.codecs);
      if (!task.prompts.isEmpty()) {
        log.info("task {} hands over {} prompts", task.context.taskId(), task.prompts.size());
      }
    }
  }
}
