package dev.millrace.inference.engine;

import dev.millrace.inference.api.FinishReason;
import dev.millrace.inference.api.GenerateEvent;
import dev.millrace.inference.api.TokenLogprob;
import dev.millrace.inference.api.TraceOnly;
import dev.millrace.inference.sampling.SamplingState;
import java.util.Arrays;
import java.util.Comparator;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * One request under way. Made on the submitter's thread; from the inbox on the engine thread alone
 * touches it.
 *
 * <p>Its tokens are {@code [0, length)} known, then {@code pending} ones that steps in flight
 * sample. Of these {@code [0, computed)} have keys and values in memory, {@code [0, scheduled)}
 * will have them when the steps in flight have ended. There is no phase: a step takes some of
 * {@code wanted()}, and one that reaches {@code planned()} samples the next token.
 */
final class Sequence extends SequenceState implements Engine.Handle {
  private static final Logger log = LoggerFactory.getLogger(Sequence.class);

  /** Lower priorities first, equal ones in the order of submission. */
  static final Comparator<Sequence> ORDER =
      Comparator.<Sequence>comparingInt(s -> s.request.scheduling().priority())
          .thenComparingLong(s -> s.arrival);

  enum State {
    /** In the engine's inbox. */
    NEW,
    /** Queued in the scheduler. */
    WAITING,
    /** Holds KV blocks. */
    RUNNING,
    /** Its listener has heard the last. */
    ENDED
  }

  /** Why a request is refused. */
  record Rejection(GenerateEvent.Failure failure, String message) {}

  static final int[] NO_BLOCKS = {};

  final Engine engine;
  final TokenRequest request;
  final @Nullable Rejection rejection;

  final int minTokens;

  /** When it began to wait to be allowed more tokens, if it does. */
  private long heldNanos;

  State state = State.NEW;
  long arrival;

  int cachedPromptTokens;

  // BlockManager's.
  int[] blocks = NO_BLOCKS;
  long chain;

  // Scheduler's.
  int runningIndex;
  int bypassed;
  boolean alone;
  int suspectUntil;
  int attempts;

  /** Scheduler's: how often it gave its memory to others. */
  int preempted;

  /** Admission's: how its end was drawn, and of how many tokens on. */
  double drawn;

  int drawnAt;

  /** WaitingQueue's: tokens that its tenant was charged when it was admitted. */
  int charged;

  /** WaitingQueue's: whom it charged; null if nobody. */
  @Nullable Object chargedTo;

  /** WaitingQueue's: what its admission took of what lower priorities are owed. */
  double paid;

  private boolean listenerThrew;

  Sequence(
      Engine engine,
      TokenRequest request,
      TokenListener listener,
      int maxContext,
      @Nullable Rejection rejection) {
    super(request, listener, maxContext);
    this.engine = engine;
    this.request = request;
    this.rejection = rejection;
    this.minTokens = request.sampling().minTokens();
  }

  /** Known tokens. */
  int length() {
    return promptLength + outputLength;
  }

  /** Tokens there will be when the steps in flight have ended. */
  int planned() {
    return length() + pending;
  }

  /** Tokens that a step may compute now. The very last token's keys and values nobody needs. */
  int wanted() {
    return Math.min(planned(), bound - 1) - scheduled;
  }

  /** Any thread's. */
  synchronized void allow(int tokens) {
    allowed = Math.max(allowed, tokens);
  }

  /** Takes note of what was allowed, once for each step, so that it stays as it was planned. */
  void settle() {
    bound = (int) Math.min(limit, (long) promptLength + allowed);
    boolean held = held();
    if (held && !wasHeld) {
      heldNanos = System.nanoTime();
    }
    wasHeld = held;
  }

  /** Whether it waits to be allowed more tokens. */
  boolean held() {
    return bound < limit && planned() >= bound;
  }

  /** {@link System#nanoTime()} of when that began; as of now where it was not noted yet. */
  long heldNanos() {
    return wasHeld ? heldNanos : System.nanoTime();
  }

  boolean complete() {
    return length() >= limit;
  }

  /** Generated tokens, resumed ones included. */
  int generated() {
    return outputLength;
  }

  int token(int position) {
    return position < promptLength ? request.prompt()[position] : output[position - promptLength];
  }

  /** Copies known tokens [from, to). */
  void copyTokens(int from, int to, int[] target, int at) {
    int border = Math.clamp(promptLength, from, to);
    if (from < border) {
      System.arraycopy(request.prompt(), from, target, at, border - from);
    }
    if (border < to) {
      System.arraycopy(output, border - promptLength, target, at + border - from, to - border);
    }
  }

  void append(int token) {
    // The request's own array is full: the first append leaves it.
    if (outputLength == output.length) {
      output = Arrays.copyOf(output, outputLength + Math.max(16, outputLength >> 1));
    }
    output[outputLength++] = token;
  }

  boolean isStop(int token) {
    for (int stop : stops) {
      if (stop == token && outputLength >= minTokens) {
        return true;
      }
    }
    return false;
  }

  /** Starts to run with the first {@code cached} tokens computed already. */
  void admitted(int cached) {
    become(State.WAITING, State.RUNNING);
    computed = cached;
    scheduled = cached;
    cachedPromptTokens = Math.min(cached, promptLength);
    admittedLength = length();
    sampling =
        new SamplingState(
            request.sampling(),
            request.prompt(),
            Arrays.copyOf(output, outputLength),
            request.stopTokens());
  }

  SamplingState sampling() {
    if (sampling == null) {
      throw new IllegalStateException(this + " does not run");
    }
    return sampling;
  }

  /** Goes back to the queue with nothing but its known tokens. */
  void restart() {
    become(State.RUNNING, State.WAITING);
    forgetWork();
  }

  /** Exactly once: who calls it tells the listener. */
  void ended() {
    if (state == State.ENDED) {
      throw new IllegalStateException(this + " has ended already");
    }
    state = State.ENDED;
    forgetWork();
  }

  private void forgetWork() {
    epoch++;
    computed = 0;
    scheduled = 0;
    pending = 0;
    sampling = null;
  }

  void tellStarted() {
    if (!started) {
      started = true;
      try {
        listener.onStarted(cachedPromptTokens);
      } catch (Throwable e) {
        listenerThrew(e);
      }
    }
  }

  void tellToken(int token, @Nullable TokenLogprob logprob) {
    try {
      listener.onToken(token, logprob);
    } catch (Throwable e) {
      listenerThrew(e);
    }
  }

  void tellFinished(FinishReason reason) {
    try {
      listener.onFinished(reason);
    } catch (Throwable e) {
      listenerThrew(e);
    }
  }

  void tellFailed(GenerateEvent.Failure failure, String message) {
    try {
      listener.onFailed(failure, message);
    } catch (Throwable e) {
      listenerThrew(e);
    }
  }

  private void listenerThrew(Throwable e) {
    if (!listenerThrew) {
      listenerThrew = true; // said once: it may do so at each token
      log.error("The listener of {} threw; the sequence goes on", this, TraceOnly.of(e));
    }
  }

  void become(State from, State to) {
    if (state != from) {
      throw new IllegalStateException(this + " cannot become " + to);
    }
    state = to;
  }

  @Override
  public String toString() {
    return "sequence " + request.id() + " (" + state + ", " + length() + " tokens)";
  }
}
