package dev.millrace.inference.engine;

import dev.millrace.inference.api.FinishReason;
import dev.millrace.inference.api.GenerateEvent;
import dev.millrace.inference.api.TraceOnly;
import dev.millrace.inference.sampling.SamplingState;
import java.util.Arrays;
import java.util.Comparator;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * One request under way. Made on the submitter's thread; from the inbox on the engine thread alone
 * touches it. Of one that runs, what each step changes is in its lane ({@link Lanes}), as are its
 * latest tokens.
 *
 * <p>Its tokens are {@code [0, length)} known, then {@code pending} ones that steps in flight
 * sample. Of these {@code [0, computed)} have keys and values in memory, {@code [0, scheduled)}
 * will have them when the steps in flight have ended. There is no phase: a step takes some of
 * {@code wanted()}, and one that reaches {@code planned()} samples the next token.
 */
final class Sequence implements Engine.Handle {
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
  static final int NO_LANE = -1;
  private static final int[] NO_STOPS = {};

  final Engine engine;
  private final Lanes lanes;
  final TokenRequest request;
  final TokenListener listener;
  final @Nullable Rejection rejection;

  final int promptLength;
  final int minTokens;

  /** Tokens that end it; none where it is to go on after them. */
  final int[] stops;

  /** Most tokens it can come to: of the request or of the context, whichever ends first. */
  final int limit;

  /** Generated tokens that it may come to, as last allowed by any thread. */
  private volatile int allowed;

  /** When it began to wait to be allowed more tokens, if it does. */
  private long heldNanos;

  private boolean wasHeld;

  State state = State.NEW;
  long arrival;

  /** Of the one that runs. */
  int lane = NO_LANE;

  /** Generated tokens; the latest may be in its lane alone. */
  private int[] output;

  private int outputLength;
  private int cachedPromptTokens;
  boolean started;

  // BlockManager's: its blocks, how many, the last of them, and how many may be shared; how many
  // more are kept for it, and how many of both it was the first to hold.
  int[] blocks = NO_BLOCKS;
  int blockCount;
  int lastBlock;
  int shareable;
  int reserved;
  int owned;
  long chain;

  // Scheduler's.
  int runningIndex;
  int bypassed;
  boolean suspect;
  boolean alone;
  int suspectUntil;
  int attempts;

  /** Scheduler's: how often it gave its memory to others. */
  int preempted;

  /** Admission's: tokens of prompt and output that it may well come to. */
  int expectedEnd;

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
    this.engine = engine;
    this.lanes = engine.lanes();
    this.request = request;
    this.listener = listener;
    this.rejection = rejection;
    this.promptLength = request.prompt().length;
    this.minTokens = request.sampling().minTokens();
    this.stops = request.sampling().ignoreEos() ? NO_STOPS : request.stopTokens();
    this.limit = (int) Math.min((long) promptLength + request.sampling().maxTokens(), maxContext);
    this.allowed = request.scheduling().allowed();
    this.output = request.resume();
    this.outputLength = output.length;
  }

  private boolean runs() {
    return lane != NO_LANE;
  }

  /** Known tokens. */
  int length() {
    return runs() ? lanes.known[lane] : promptLength + outputLength;
  }

  /** Tokens there will be when the steps in flight have ended. */
  int planned() {
    return runs() ? lanes.planned[lane] : length();
  }

  int pending() {
    return planned() - length();
  }

  int computed() {
    return runs() ? lanes.computed[lane] : 0;
  }

  int scheduled() {
    return runs() ? lanes.scheduled[lane] : 0;
  }

  /** Tokens that a step may compute now. The very last token's keys and values nobody needs. */
  int wanted() {
    return runs() ? Math.min(planned(), lanes.bound[lane] - 1) - scheduled() : 0;
  }

  /** Any thread's. */
  synchronized void allow(int tokens) {
    allowed = Math.max(allowed, tokens);
  }

  /**
   * Takes note of what was allowed to one that runs, before each step in which that may matter, so
   * that it stays as it was planned.
   */
  void settle() {
    lanes.bound[lane] = bound();
    boolean held = held();
    if (held && !wasHeld) {
      heldNanos = System.nanoTime();
    }
    wasHeld = held;
  }

  private int bound() {
    return (int) Math.min(limit, (long) promptLength + allowed);
  }

  /** Whether it runs and waits to be allowed more tokens. */
  boolean held() {
    int bound = bound();
    return runs() && bound < limit && planned() >= bound;
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
    return length() - promptLength;
  }

  int token(int position) {
    if (position < promptLength) {
      return request.prompt()[position];
    }
    if (position - promptLength >= outputLength) {
      collect();
    }
    return output[position - promptLength];
  }

  /** Copies known tokens [from, to). */
  void copyTokens(int from, int to, int[] target, int at) {
    int border = Math.clamp(promptLength, from, to);
    if (from < border) {
      System.arraycopy(request.prompt(), from, target, at, border - from);
    }
    if (border < to) {
      collect();
      System.arraycopy(output, border - promptLength, target, at + border - from, to - border);
    }
  }

  /** Takes over its latest tokens from its lane. */
  void collect() {
    int count = generated();
    if (count > output.length) {
      // The request's own array is full: the first token leaves it.
      output =
          Arrays.copyOf(output, Math.max(count, outputLength + Math.max(16, outputLength >> 1)));
    }
    while (outputLength < count) {
      output[outputLength] = lanes.token(lane, promptLength + outputLength);
      outputLength++;
    }
    if (runs()) {
      lanes.collected(lane);
    }
  }

  /** Starts to run with the first {@code cached} tokens computed already. */
  void admitted(int cached) {
    become(State.WAITING, State.RUNNING);
    cachedPromptTokens = Math.min(cached, promptLength);
    SamplingState sampling =
        new SamplingState(
            request.sampling(),
            request.prompt(),
            Arrays.copyOf(output, outputLength),
            request.stopTokens());
    lanes.enter(this, cached, sampling);
  }

  /** Goes back to the queue, out of its lane, with nothing but its known tokens. */
  void restart() {
    become(State.RUNNING, State.WAITING);
  }

  /** Exactly once: who calls it tells the listener. */
  void ended() {
    if (state == State.ENDED) {
      throw new IllegalStateException(this + " has ended already");
    }
    state = State.ENDED;
  }

  int lastOfBlocks() {
    return blocks[blockCount - 1];
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

  void listenerThrew(Throwable e) {
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
