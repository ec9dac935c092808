package dev.millrace.topology;

import dev.millrace.inference.api.GenerateEvent;
import dev.millrace.inference.api.GenerateEvent.Delta;
import dev.millrace.inference.api.GenerateEvent.Done;
import dev.millrace.inference.api.GenerateEvent.Failed;
import dev.millrace.inference.api.GenerateRequest;
import dev.millrace.inference.api.Generator;
import dev.millrace.inference.api.TraceOnly;
import dev.millrace.schemas.CompletionFinish;
import dev.millrace.topology.DeadLetters.Reason;
import dev.millrace.topology.InFlightPrompt.State;
import java.util.ArrayList;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Queue;
import java.util.Set;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.function.Consumer;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * The prompts of a task that the engine has: hands them over, takes the engine's events from the
 * one queue of this incarnation of the task, saves progress, and tries again what the engine
 * failed. Belongs to the stream thread; the engine's threads only add to the queue.
 */
final class PromptRuns {
  private static final Logger log = LoggerFactory.getLogger(PromptRuns.class);

  /** Bounds a turn of the stream thread. */
  private static final int MOST_EVENTS = 20_000;

  private static final long LONGEST_BACKOFF_MS = 30_000;

  private static final long SUSPECT_PAUSE_MS = 100;

  /** Of a saved delta, without its tokens. */
  private static final long RECORD_BYTES = 48;

  /** How long the engine may take to let go of a prompt before it is ended without it. */
  private static final long PATIENCE_MS = 2_000;

  /** Keeps sums of positions within an int. */
  private static final int FARTHEST = 1 << 28;

  private record Arrived(Attempt attempt, GenerateEvent event) {}

  private final TaskState task;
  private final Services services;
  private final PromptEndings endings;
  private final WorkerConfig.Save save;
  private final WorkerConfig.Retry retry;
  private final long chunksInterval;
  private final Queue<Arrived> queue = new ConcurrentLinkedQueue<>();
  private final Set<InFlightPrompt> chunked = new LinkedHashSet<>();

  /**
   * So many tokens further than what was saved at a crash a prompt is past the crash itself: as far
   * as it may come ahead of what is durable. Where that has no bound this is an estimate: those
   * that were not saved, and those that came until a save was acknowledged.
   */
  private final int pastIt;

  /** So many fresh prompts are submitted only when they are durable. */
  private int careful;

  /** What this task has reported as being at risk. */
  private long atRisk;

  /** One submission to the engine: its listener, which outlives the task if the engine is late. */
  private final class Attempt implements Consumer<GenerateEvent> {
    final InFlightPrompt prompt;

    /** Of the engine's text thread: when the last tokens came; before, when it was submitted. */
    private long tokensAt = System.nanoTime();

    private boolean began;

    Attempt(InFlightPrompt prompt) {
      this.prompt = prompt;
    }

    @Override
    public void accept(GenerateEvent event) {
      if (task.closed) {
        services.metrics().late.increment();
      } else {
        if (event instanceof Delta delta && delta.tokens().length > 0) {
          measure(delta.tokens().length);
        }
        queue.add(new Arrived(this, event));
      }
    }

    private void measure(int tokens) {
      ServingMetrics serving = services.metrics().serving;
      long now = System.nanoTime();
      if (began) {
        serving.tokens(tokens, (now - tokensAt) / tokens);
      } else {
        serving.firstToken(now - tokensAt);
        serving.tokens(tokens);
        began = true;
      }
      tokensAt = now;
    }
  }

  PromptRuns(TaskState task, PromptEndings endings) {
    this.task = task;
    this.services = task.services;
    this.endings = endings;
    this.save = services.config().save();
    this.pastIt = (int) Math.min(FARTHEST, Math.max(2L * save.tokens(), save.ahead()));
    this.retry = services.config().retry();
    this.chunksInterval = services.config().chunksInterval().toMillis();
  }

  /**
   * Has a prompt answered, going on after what was generated before: at once, or, if a worker has
   * crashed lately, as soon as the note of this attempt is durable, since otherwise a prompt that
   * crashes the worker at once would do so for ever. A suspect waits for its turn to run alone, and
   * the others for the suspects.
   */
  void start(InFlightPrompt prompt) {
    long now = task.now();
    if (prompt.noted) {
      if (task.commits() > prompt.attemptAt && task.owned()) {
        prompt.noted = false;
        if (services.quarantine().enter(prompt)) {
          submit(prompt);
        } else {
          // A suspect has come meanwhile.
          holdBack(prompt, now);
        }
      }
      return;
    }
    if (givenUp(prompt)) {
      return;
    }
    if (!services.quarantine().enter(prompt)) {
      holdBack(prompt, now);
      return;
    }
    if (prompt.crashes >= Quarantine.SUSPECT) {
      log.info(
          "prompt {} was there at {} crashes of a worker: it runs alone",
          prompt.label(),
          prompt.crashes);
      services.metrics().quarantined.increment();
      prompt.alone = true;
    }
    boolean waits = prompt.crashes > 0 || careful > 0 || !task.owned();
    if (prompt.attempt == 0 && careful > 0) {
      careful--;
    }
    nextAttempt(prompt);
    if (prompt.attempt > 1) {
      services.metrics().retried.increment();
    }
    if (waits) {
      prompt.noted = true;
      prompt.state = State.WAITING;
      prompt.submitAt = now;
      task.askForCommit();
    } else {
      submit(prompt);
    }
  }

  /**
   * The last owner of the task has crashed: counts that against the prompts that it had given to
   * its engine.
   *
   * <p>From now on a fresh prompt is submitted only when it is durable, since the one that crashed
   * the worker may be among those that are read again. These are the next ones; each of them that
   * is submitted is also one that no later owner reads again, so that their number need not be
   * known.
   */
  void crashed(int term) {
    careful = services.config().window().prompts();
    for (InFlightPrompt prompt : task.prompts.values()) {
      // No note: it may have been submitted when it was taken in.
      if (prompt.outcome == null && (prompt.term == 0 || prompt.term == term)) {
        prompt.term = term;
        crashed(prompt);
        task.store.saveAttempt(prompt);
      }
    }
  }

  /** A worker has crashed while its engine had this prompt: see {@link Quarantine}. */
  private void crashed(InFlightPrompt prompt) {
    int size = prompt.tokens.size();
    boolean gotOn = size > prompt.crashedAt + pastIt;
    if (prompt.alone && !gotOn) {
      prompt.crashesAlone++;
    } else if (prompt.crashes == 0 || gotOn) {
      prompt.crashes = 1;
      prompt.crashesAlone = 0;
      prompt.crashedAt = size;
    } else {
      prompt.crashes++;
    }
    prompt.alone = false;
  }

  /** Whether it crashed the worker so often that it is not tried again. */
  private boolean givenUp(InFlightPrompt prompt) {
    if (prompt.crashesAlone < retry.crashAttempts()) {
      return false;
    }
    endings.deadLetter(
        prompt,
        Reason.CRASHED,
        "the worker crashed %d times while this prompt ran alone, after %d generated tokens"
            .formatted(prompt.crashesAlone, prompt.tokens.size()),
        null);
    return true;
  }

  /** It is past the point where it stood when the worker crashed: that was not its doing. */
  private void clear(InFlightPrompt prompt) {
    prompt.crashes = 0;
    prompt.crashesAlone = 0;
    endings.leaveQuarantine(prompt);
  }

  private void submit(InFlightPrompt prompt) {
    endings.wake(prompt);
    Attempt attempt = new Attempt(prompt);
    prompt.current = attempt;
    prompt.state = State.RUNNING;
    if (prompt.accepted().stream() && !endings.chunksAllowed(prompt)) {
      // Its chunks wait until its attempt is durable: ask for that soon.
      task.askForCommit();
    }
    // Longer than it must, so that the others go on when it is durable that it has cleared itself.
    int alone =
        prompt.alone ? Math.max(1, prompt.crashedAt + 2 * pastIt + 1 - prompt.tokens.size()) : 0;
    prompt.allowed = mostTokens(prompt);
    GenerateRequest request =
        prompt.accepted().resumed(prompt.tokens.toArray(), alone, prompt.allowed);
    if (prompt.trace != null) {
      prompt.trace.generating(request, services.mapper().model(), prompt.attempt);
    }
    try {
      prompt.generation = services.generator().submit(request, attempt);
    } catch (RuntimeException e) {
      log.error("the engine threw for prompt {}", prompt.label(), TraceOnly.of(e));
      attempt.accept(new Failed(GenerateEvent.Failure.ENGINE, "the engine threw " + e));
    }
  }

  /**
   * How far the engine may bring a prompt for now. The bound is on what a crash costs, so it counts
   * from what is durable; what holds up the saves then holds up the generation.
   */
  private int mostTokens(InFlightPrompt prompt) {
    return save.ahead() == 0
        ? Integer.MAX_VALUE
        : (int)
            Math.min(
                Integer.MAX_VALUE, (long) prompt.tokens.durable(task.commits()) + save.ahead());
  }

  /** After a commit: more is durable. */
  void allowMore() {
    for (InFlightPrompt prompt : task.prompts.values()) {
      Generator.Generation generation = prompt.generation;
      if (prompt.state == State.RUNNING && generation != null) {
        int most = mostTokens(prompt);
        if (most > prompt.allowed) {
          prompt.allowed = most;
          generation.allow(most);
        }
      }
    }
  }

  /** Gives what follows a number of its own, so that its chunks are told from earlier ones. */
  void nextAttempt(InFlightPrompt prompt) {
    prompt.attempt++;
    prompt.attemptAt = task.commits();
    prompt.term = task.term;
    if (prompt.attempt > 1) {
      task.store.saveAttempt(prompt);
    }
    prompt.chunkSequence = 0;
    prompt.chunkAt = 0;
    prompt.chunkContent.setLength(0);
    prompt.chunkReasoning.setLength(0);
  }

  /** Takes what the engine has reported. */
  void drain() {
    if (queue.isEmpty()) {
      return;
    }
    long now = task.now();
    for (int i = 0; i < MOST_EVENTS; i++) {
      Arrived arrived = queue.poll();
      if (arrived == null) {
        break;
      }
      InFlightPrompt prompt = arrived.attempt().prompt;
      if (prompt.current != arrived.attempt()) {
        services.metrics().late.increment();
        continue;
      }
      endings.contain(prompt, () -> take(prompt, arrived.event(), now));
    }
    sendChunks(now);
  }

  private void take(InFlightPrompt prompt, GenerateEvent event, long now) {
    switch (event) {
      case Delta delta -> {
        services.metrics().tokens.increment(delta.tokens().length);
        boolean stream = prompt.accepted().stream();
        prompt.addDelta(delta, stream, now);
        if (stream) {
          chunked.add(prompt);
        }
        if (prompt.tokens.unsaved() >= save.tokens() || pressed(prompt)) {
          save(prompt, now);
        }
        if (held(prompt)) {
          services.metrics().held.increment();
        }
        services.metrics().atRiskOfOne(prompt.tokens.atRisk(task.commits()));
        if (prompt.crashes > 0 && prompt.tokens.size() > prompt.crashedAt + pastIt) {
          clear(prompt);
        }
      }
      case GenerateEvent.ToolCall call -> {
        // They are sent with the answer, of which they are a part: so each is sent once.
      }
      case Done done -> {
        if (prompt.accepted().stream()) {
          chunked.remove(prompt);
        }
        if (prompt.trace != null) {
          prompt.trace.generated(done, services.mapper().model());
        }
        CompletionFinish finish = EventMapper.finish(done);
        if (finish == CompletionFinish.CANCELLED && prompt.endAs != null) {
          finish = prompt.endAs;
        }
        endings.complete(prompt, done, finish);
      }
      case Failed failed -> {
        chunked.remove(prompt);
        failed(prompt, failed, now);
      }
    }
  }

  private void failed(InFlightPrompt prompt, Failed failed, long now) {
    prompt.current = null;
    prompt.generation = null;
    if (prompt.trace != null) {
      prompt.trace.failed(failed);
    }
    endings.leaveQuarantine(prompt);
    switch (failed.failure()) {
      case INVALID_REQUEST ->
          endings.deadLetter(prompt, Reason.INVALID_REQUEST, failed.message(), null);
      case PROMPT_TOO_LONG ->
          endings.deadLetter(prompt, Reason.PROMPT_TOO_LONG, failed.message(), null);
      case UNSUPPORTED -> endings.deadLetter(prompt, Reason.UNSUPPORTED, failed.message(), null);
      case ENGINE, CLOSED -> {
        if (prompt.endAs != null) {
          endings.end(prompt, prompt.endAs);
          return;
        }
        boolean promptsFault =
            failed.failure() == GenerateEvent.Failure.ENGINE
                && services.generator().status().failure() == null;
        if (promptsFault && ++prompt.failures >= retry.attempts()) {
          endings.deadLetter(
              prompt,
              Reason.ENGINE_FAILED,
              "failed %d times, at last with: %s".formatted(prompt.failures, failed.message()),
              null);
          return;
        }
        long backoff = retry.backoff().toMillis() << Math.clamp(prompt.failures - 1L, 0, 16);
        rest(prompt, now + Math.clamp(backoff, 1, LONGEST_BACKOFF_MS));
        log.info(
            "prompt {} is submitted again in {} ms: {}",
            prompt.label(),
            prompt.submitAt - now,
            failed.failure());
      }
    }
  }

  /** It waits for suspects. That it is not at the engine is noted, so that no crash counts. */
  private void holdBack(InFlightPrompt prompt, long now) {
    if (prompt.term == 0 || prompt.term == task.term) {
      prompt.term = InFlightPrompt.NOT_GIVEN;
      task.store.saveAttempt(prompt);
    }
    rest(prompt, now + SUSPECT_PAUSE_MS);
  }

  /** Waits for a later try. Fresh prompts may come in its place. */
  private void rest(InFlightPrompt prompt, long until) {
    prompt.state = State.WAITING;
    prompt.submitAt = until;
    if (!prompt.resting) {
      prompt.resting = true;
      services.gate().rest();
    }
  }

  /**
   * Whether it has come half as far ahead as it may, so that it should be saved before its time:
   * once for each commit, and when it has to wait.
   */
  private boolean pressed(InFlightPrompt prompt) {
    return save.ahead() > 0
        && prompt.tokens.atRisk(task.commits()) > save.ahead() / 2
        && (prompt.pressedAt < task.commits() || held(prompt));
  }

  /** Whether the engine waits until it is allowed more of this prompt's tokens. */
  private static boolean held(InFlightPrompt prompt) {
    int size = prompt.tokens.size();
    return size >= prompt.allowed && size < prompt.accepted().request().sampling().maxTokens();
  }

  /** Saves a prompt's tokens, unless too many bytes were saved in this second. */
  private void save(InFlightPrompt prompt, long now) {
    long estimate = 3L * prompt.tokens.unsaved() + RECORD_BYTES;
    if (services.saves().take(estimate, now)) {
      boolean early = pressed(prompt);
      saveNow(prompt);
      if (early) {
        prompt.pressedAt = task.commits();
        // So that it does not have to wait, or not for long.
        task.askForCommit();
      }
    } else {
      services.metrics().savesPutOff.increment();
    }
  }

  private void saveNow(InFlightPrompt prompt) {
    services.metrics().savedBytes.increment(task.store.saveTokens(prompt, task.commits()));
  }

  /** Submits what waited for its note to be durable. */
  void startNoted() {
    for (InFlightPrompt prompt : List.copyOf(task.prompts.values())) {
      if (prompt.noted && prompt.state == State.WAITING) {
        endings.contain(prompt, () -> start(prompt));
      }
    }
  }

  /** Sends what was written since the last chunk, of prompts whose last one is long enough ago. */
  void sendChunks(long now) {
    // Sending may end a prompt, which takes it out of this set.
    for (InFlightPrompt prompt : chunked.toArray(new InFlightPrompt[0])) {
      if (prompt.state != State.RUNNING) {
        chunked.remove(prompt);
      } else if (now - prompt.chunkAt >= chunksInterval && endings.chunksAllowed(prompt)) {
        chunked.remove(prompt);
        if (!prompt.chunkContent.isEmpty() || !prompt.chunkReasoning.isEmpty()) {
          prompt.chunkAt = now;
          endings.sendChunk(prompt);
        }
      }
    }
  }

  /** What is due by the clock: saves, deadlines, further tries. */
  void scan(long now) {
    Generator.Status status = services.generator().status();
    services.gate().waitingTokens(status.waitingTokens());
    String failure = status.failure();
    if (failure != null) {
      services.engineFailed().accept(failure);
      return;
    }
    long risked = 0;
    List<InFlightPrompt> open = new ArrayList<>();
    for (InFlightPrompt prompt : task.prompts.values()) {
      if (prompt.state != State.SENT) {
        risked += prompt.tokens.atRisk(task.commits());
        open.add(prompt);
      }
    }
    for (InFlightPrompt prompt : open) {
      if (prompt.accepted != null && prompt.state != State.SENT) {
        endings.contain(prompt, () -> scan(prompt, now));
      }
    }
    services.metrics().atRisk(risked - atRisk);
    atRisk = risked;
  }

  private void scan(InFlightPrompt prompt, long now) {
    if (prompt.tokens.unsaved() > 0
        && (now - prompt.unsavedSince >= save.interval().toMillis() || pressed(prompt))) {
      save(prompt, now);
    }
    if (prompt.endAs == null && now >= prompt.accepted().deadline()) {
      endEarly(prompt, CompletionFinish.EXPIRED, now);
    } else if (prompt.endAs != null
        && prompt.state == State.RUNNING
        && now - prompt.endAsked >= PATIENCE_MS) {
      log.warn("the engine does not let go of prompt {}: it ends without it", prompt.label());
      endings.end(prompt, prompt.endAs);
    } else if (prompt.state == State.WAITING && now >= prompt.submitAt) {
      start(prompt);
    }
  }

  /** Ends a prompt that the engine does not have, as cancelled or expired. */
  void endUnrun(InFlightPrompt prompt, CompletionFinish finish) {
    if (prompt.attempt > 0 && (prompt.term != task.term || prompt.chunkSequence > 0)) {
      // Chunks may have been sent under the number that it still has, by an earlier owner too.
      nextAttempt(prompt);
    }
    endings.end(prompt, finish);
  }

  /** Ends a prompt before its time: at once where the engine does not have it. */
  void endEarly(InFlightPrompt prompt, CompletionFinish finish, long now) {
    switch (prompt.state) {
      case WAITING -> endUnrun(prompt, finish);
      case RUNNING -> {
        prompt.endAs = finish;
        prompt.endAsked = now;
        Generator.Generation generation = prompt.generation;
        if (generation != null) {
          generation.cancel();
        }
      }
      case UNREAD, UNWRITTEN, SENT -> {
        // Unread: when it is read. The others have their outcome.
      }
    }
  }

  /** Saves what every prompt has generated. */
  void saveAll() {
    for (InFlightPrompt prompt : task.prompts.values()) {
      if (prompt.state != State.SENT) {
        saveNow(prompt);
      }
    }
  }

  /** The task is gone: its prompts go on elsewhere. */
  void cancelAll() {
    for (InFlightPrompt prompt : task.prompts.values()) {
      Generator.Generation generation = prompt.generation;
      services.quarantine().leave(prompt);
      endings.wake(prompt);
      if (prompt.state != State.SENT) {
        services.metrics().regenerated.increment(prompt.tokens.unsaved());
      }
      prompt.current = null;
      if (prompt.trace != null) {
        prompt.trace.end();
      }
      if (generation != null) {
        generation.cancel();
      }
    }
    endings.leaveQuarantineNow();
    services.metrics().atRisk(-atRisk);
    atRisk = 0;
    services.metrics().late.increment(queue.size());
    queue.clear();
  }
}
