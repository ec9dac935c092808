package dev.millrace.inference.engine;

import dev.millrace.inference.sampling.SamplingState;
import org.jspecify.annotations.Nullable;

/**
 * What each step reads and writes of a {@link Sequence}, and nothing else: fields of a superclass
 * lie together, and with a thousand sequences that left the processor's caches while the device
 * computed, fetching them is most of what a step costs the host. What else a step wants of the
 * request is copied to here for that reason.
 */
abstract class SequenceState {
  private static final int[] NO_STOPS = {};

  final TokenListener listener;
  final int promptLength;

  /** Tokens that end it; none where it is to go on after them. */
  final int[] stops;

  /** Most tokens it can come to: of the request or of the context, whichever ends first. */
  final int limit;

  /** Generated tokens that it may come to, as last allowed by any thread. */
  volatile int allowed;

  /** The same, as tokens of prompt and output, and at most the limit; of the engine thread. */
  int bound;

  boolean wasHeld;
  boolean started;

  /** Scheduler's. */
  boolean suspect;

  int[] output;
  int outputLength;

  /** Counts its ends and restarts: results of steps planned in an earlier epoch are void. */
  int epoch;

  int computed;
  int scheduled;
  int pending;

  /** Logit row of the last step that it was in, and that step's number. */
  int row;

  long rowStep = -1;

  /** Set at admission, so that a queued sequence costs nothing but its request. */
  @Nullable SamplingState sampling;

  /** Tokens that were known at admission; up to here it is prefill, for the statistics. */
  int admittedLength;

  /** Admission's: tokens of prompt and output that it may well come to. */
  int expectedEnd;

  // BlockManager's: how many blocks, the last of them, and how many may be shared; how many more
  // are kept for it, and how many of both it was the first to hold.
  int blockCount;
  int lastBlock;
  int shareable;
  int reserved;
  int owned;

  SequenceState(TokenRequest request, TokenListener listener, int maxContext) {
    this.listener = listener;
    this.promptLength = request.prompt().length;
    this.stops = request.sampling().ignoreEos() ? NO_STOPS : request.stopTokens();
    this.limit = (int) Math.min((long) promptLength + request.sampling().maxTokens(), maxContext);
    this.allowed = request.scheduling().allowed();
    this.output = request.resume();
    this.outputLength = output.length;
  }

  /**
   * Some number out of each part. Whoever asks many sequences for it, one after another, has the
   * processor fetch them all at once: memory answers many requests in about the time of one, but a
   * sequence that is worked on before the next is looked at is fetched alone.
   */
  final long glimpse() {
    return rowStep + outputLength + (outputLength == 0 ? 0 : output[outputLength - 1]);
  }
}
