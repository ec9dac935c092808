package dev.millrace.inference.engine;

import dev.millrace.inference.sampling.SamplingState;
import java.util.Arrays;
import org.jspecify.annotations.Nullable;

/**
 * What each step reads and writes of the sequences that run, in an array a field: a thousand
 * sequences leave the processor's caches while the device computes, and fetching an object of each
 * is most of what a step would cost the host. One that runs has a lane, the index into all of
 * these, until it ends or restarts. As long as all that it does is to decode within its last block,
 * a step looks at nothing else of it but its listener ({@link #decoding}). Plain bookkeeping, of
 * the engine thread.
 */
final class Lanes {
  /**
   * Tokens of each lane that are here; a power of two. Twice those of a usual block: a sequence is
   * asked for its tokens when a block of them becomes shareable, and not once more between.
   */
  private static final int RECENT = 32;

  private final int blockSize;

  /** [lane] whose it is; null: nobody's. */
  private final @Nullable Sequence[] sequences;

  private final @Nullable TokenListener[] listeners;
  private final @Nullable SamplingState[] samplings;

  /** [lane] tokens that end it; none where it is to go on after them. */
  private final int[][] stops;

  /** [lane] a number that nobody else's stay in any lane has; 0 where it is nobody's. */
  final long[] stay;

  /** [lane] tokens that are known, that will be when the steps in flight have ended. */
  final int[] known;

  final int[] planned;

  /** [lane] tokens with keys and values in memory, and when the steps in flight have ended. */
  final int[] computed;

  final int[] scheduled;

  /** [lane] tokens of prompt and output that it may come to, as allowed so far. */
  final int[] bound;

  /** [lane] most tokens it can come to, and the fewest before a stop token ends it. */
  final int[] limit;

  private final int[] stopsFrom;

  /** [lane] tokens that were known when it began; up to here it is prefill, for the statistics. */
  final int[] prefill;

  /** [lane] computed tokens at which the scheduler has to look at it. */
  final int[] watched;

  /** [lane] blocks that hold its tokens, the slot of position 0 if all were like the last one. */
  final int[] blocks;

  final int[] slots;

  /** [lane] scheduled tokens up to which there is room in these, and a step may compute them. */
  private final int[] room;

  /** [lane] logit row of the last step that it was in, and that step's number. */
  final int[] row;

  final long[] rowStep;

  /** [lane · RECENT + position % RECENT] the last known tokens. */
  private final int[] recent;

  /** [lane] known tokens that its sequence has itself. */
  private final int[] collected;

  /** Of no use: see {@link #glimpse}. */
  private long glimpsed;

  private final int[] free;
  private int freeCount;
  private long stays;

  Lanes(int count, int blockSize) {
    this.blockSize = blockSize;
    this.sequences = new Sequence[count];
    this.listeners = new TokenListener[count];
    this.samplings = new SamplingState[count];
    this.stops = new int[count][];
    this.stay = new long[count];
    this.known = new int[count];
    this.planned = new int[count];
    this.computed = new int[count];
    this.scheduled = new int[count];
    this.bound = new int[count];
    this.limit = new int[count];
    this.stopsFrom = new int[count];
    this.prefill = new int[count];
    this.watched = new int[count];
    this.blocks = new int[count];
    this.slots = new int[count];
    this.room = new int[count];
    this.row = new int[count];
    this.rowStep = new long[count];
    this.recent = new int[Math.multiplyExact(count, RECENT)];
    this.collected = new int[count];
    this.free = new int[count];
    this.freeCount = count;
    Arrays.setAll(free, i -> count - 1 - i);
  }

  /**
   * Gives a sequence a lane.
   *
   * @param cached tokens whose keys and values are in memory already
   */
  void enter(Sequence sequence, int cached, SamplingState sampling) {
    int lane = free[--freeCount];
    int length = sequence.length();
    sequences[lane] = sequence;
    listeners[lane] = sequence.listener;
    samplings[lane] = sampling;
    stops[lane] = sequence.stops;
    stay[lane] = ++stays;
    known[lane] = length;
    planned[lane] = length;
    computed[lane] = cached;
    scheduled[lane] = cached;
    bound[lane] = 0;
    limit[lane] = sequence.limit;
    stopsFrom[lane] =
        (int) Math.min((long) sequence.promptLength + sequence.minTokens, sequence.limit);
    prefill[lane] = length;
    watched[lane] = 0;
    room[lane] = 0;
    rowStep[lane] = -1;
    recent[place(lane, length - 1)] = sequence.token(length - 1);
    collected[lane] = length;
    sequence.lane = lane;
  }

  /** Takes a sequence's lane away; it keeps its known tokens. */
  void leave(Sequence sequence) {
    sequence.collect();
    int lane = sequence.lane;
    sequence.lane = Sequence.NO_LANE;
    sequences[lane] = null;
    listeners[lane] = null;
    samplings[lane] = null;
    stay[lane] = 0;
    computed[lane] = 0;
    prefill[lane] = 0;
    free[freeCount++] = lane;
  }

  /** Takes all lanes away for good. */
  void close() {
    Arrays.fill(sequences, null);
    Arrays.fill(listeners, null);
    Arrays.fill(samplings, null);
    Arrays.fill(stay, 0);
    Arrays.fill(computed, 0);
    Arrays.fill(prefill, 0);
    freeCount = 0;
  }

  /** Takes note of the blocks that a sequence has, and of what it is allowed. */
  void settle(Sequence sequence) {
    int lane = sequence.lane;
    int count = sequence.blockCount;
    blocks[lane] = count;
    slots[lane] = (sequence.lastBlock - count + 1) * blockSize;
    room[lane] = Math.min(bound[lane] - 1, count * blockSize);
  }

  /**
   * The first of some lanes that does not just decode; {@code end} if all do. All that a step can
   * compute of one that does is one token, and it has a block for that.
   */
  int decoding(int[] of, int begin, int end) {
    int[] plans = planned;
    int[] starts = scheduled;
    int[] rooms = room;
    int i = begin;
    while (i < end) {
      int lane = of[i];
      if (plans[lane] - starts[lane] != 1 || starts[lane] >= rooms[lane]) {
        return i;
      }
      i++;
    }
    return i;
  }

  /**
   * Those of some lanes that do not just decode.
   *
   * @param to takes them
   * @return how many those are
   */
  int others(int[] of, int count, int[] to) {
    int others = 0;
    for (int i = decoding(of, 0, count); i < count; i = decoding(of, i + 1, count)) {
      to[others++] = of[i];
    }
    return others;
  }

  /** Whether it has all the tokens that it was allowed when a step was last planned. */
  boolean mayBeHeld(int lane) {
    return planned[lane] >= bound[lane] && bound[lane] < limit[lane];
  }

  Sequence sequence(int lane) {
    return there(sequences[lane]);
  }

  TokenListener listener(int lane) {
    return there(listeners[lane]);
  }

  SamplingState sampling(int lane) {
    return there(samplings[lane]);
  }

  /**
   * Looks at the listeners of some lanes, one after another, of which {@link #listener} is about to
   * be asked for each: memory answers many requests in about the time of one, but a listener that
   * is called before the next is looked at is fetched alone. What comes of it is kept, so that no
   * compiler leaves it out.
   */
  void glimpse(int[] lanes, int count) {
    Class<?> first = count == 0 ? null : classOf(lanes[0]);
    int alike = 0;
    for (int i = 0; i < count; i++) {
      alike += classOf(lanes[i]) == first ? 1 : 0;
    }
    glimpsed += alike;
  }

  /** As {@link #glimpse}, at sequences that are about to be worked with one by one. */
  void glimpseSequences(int[] lanes, int count) {
    long sum = 0;
    for (int i = 0; i < count; i++) {
      Sequence sequence = sequences[lanes[i]];
      sum += sequence == null ? 0 : sequence.arrival + sequence.blockCount;
    }
    for (int i = 0; i < count; i++) {
      Sequence sequence = sequences[lanes[i]];
      sum += sequence == null || sequence.blockCount == 0 ? 0 : sequence.lastOfBlocks();
    }
    glimpsed += sum;
  }

  private @Nullable Class<?> classOf(int lane) {
    TokenListener listener = listeners[lane];
    return listener == null ? null : listener.getClass();
  }

  private static <T> T there(@Nullable T of) {
    if (of == null) {
      throw new IllegalStateException("nobody runs in this lane");
    }
    return of;
  }

  boolean stopsAt(int lane, int token) {
    for (int stop : stops[lane]) {
      if (stop == token && known[lane] >= stopsFrom[lane]) {
        return true;
      }
    }
    return false;
  }

  /** A step's token is known. */
  void append(int lane, int token) {
    int position = known[lane];
    recent[place(lane, position)] = token;
    known[lane] = position + 1;
    if (position + 1 - collected[lane] == RECENT) {
      sequence(lane).collect();
    }
  }

  /** Its sequence has all of its known tokens. */
  void collected(int lane) {
    collected[lane] = known[lane];
  }

  /** One of the last known tokens: the very last, or one that its sequence has not collected. */
  int token(int lane, int position) {
    return recent[place(lane, position)];
  }

  private static int place(int lane, int position) {
    return lane * RECENT + position % RECENT;
  }

  /** Sum of the computed tokens of all. */
  long computedTokens() {
    long sum = 0;
    for (int tokens : computed) {
      sum += tokens;
    }
    return sum;
  }

  /** Sum of the tokens that were known when their sequence began and are not computed. */
  long uncomputedTokens() {
    long sum = 0;
    for (int lane = 0; lane < prefill.length; lane++) {
      sum += Math.max(0, prefill[lane] - computed[lane]);
    }
    return sum;
  }
}
