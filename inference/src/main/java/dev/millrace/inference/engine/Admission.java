package dev.millrace.inference.engine;

import java.util.Comparator;
import org.jspecify.annotations.Nullable;

/**
 * Whom there is memory for, and who gives way when there is none. Plain bookkeeping, of the engine
 * thread.
 *
 * <ul>
 *   <li>A sequence is let in when what all hold at any later step is expected to have room: each
 *       grows by a token a step until its answer's expected end and then frees its blocks.
 *   <li>An answer that nothing ends but its limit is expected to come to that. Of the others each
 *       is given an end of its own, such that all together are spread as {@link AnswerLengths} says
 *       they are; one that gets past its end is given a later one. What could go wrong with these
 *       expectations, by the square root of how many and how large they are, is left free.
 *   <li>Where that was too hopeful the youngest of the lowest priority gives way and begins again
 *       later from its known tokens. It is expected to be longer each time, and after {@link
 *       #PATIENCE} times comes back when its whole limit has room, and gives way to nobody: so each
 *       gets done, and no work is lost over and over.
 * </ul>
 */
final class Admission {
  /** How often a sequence gives way to others. */
  private static final int PATIENCE = 3;

  /** Answers that end between two looks at what there is to be learned from them, and plans. */
  private static final int NEWS = 32;

  private static final int OLD = 128;

  /** Multiples of this are spread evenly over [0, 1), however many there are. */
  private static final double GOLDEN = 0.6180339887498949;

  private final BlockManager blocks;
  private final AnswerLengths lengths = new AnswerLengths();
  private final MemoryForecast forecast;
  private long draws;
  private int news;
  private int age;

  /** The forecast is of this plan. */
  private boolean current;

  /** The last that was asked for. */
  private @Nullable Sequence asked;

  /** Tokens' memory that those in the forecast can have. */
  private long memory;

  /** Sum of the squares of the tokens that are expected and not certain. */
  private double doubt;

  Admission(BlockManager blocks) {
    this.blocks = blocks;
    this.forecast = new MemoryForecast(blocks.blockSize());
  }

  AnswerLengths lengths() {
    return lengths;
  }

  /** A plan begins. */
  void begin() {
    current = false;
    age++;
  }

  /**
   * A sequence that ran has ended.
   *
   * @param stopped whether its answer has, before its limit, and nobody else ended it
   */
  void ended(Sequence sequence, boolean stopped) {
    if (sequence.stops.length > 0) {
      lengths.ended(sequence.generated(), stopped);
      news++;
    }
  }

  /**
   * Whether there is room for a sequence that {@link BlockManager#probe} has just looked at.
   *
   * @param taken blocks that it would take
   * @param running those that run, from the start, with gaps
   */
  boolean fits(Sequence candidate, int taken, @Nullable Sequence[] running, int count) {
    asked = candidate;
    expect(candidate);
    int growth = growth(candidate);
    if (!current || growth > forecast.horizon()) {
      look(growth, running, count);
    }
    long tokens = tokens(candidate, taken, blocks.blocksFor(candidate.length()));
    double wrong = doubt + doubt(candidate, growth);
    return forecast.fits(tokens, growth, memory - (long) Math.sqrt(wrong));
  }

  /** That one runs now. */
  void admitted(Sequence sequence) {
    if (sequence != asked) {
      // There was no need to ask.
      current = false;
    } else if (current) {
      int growth = growth(sequence);
      forecast.add(
          tokens(sequence, sequence.owned, sequence.blockCount + sequence.reserved), growth);
      doubt += doubt(sequence, growth);
    }
  }

  private void look(int horizon, @Nullable Sequence[] running, int count) {
    boolean learned = news >= NEWS || age >= OLD;
    if (learned) {
      learn(running, count);
    }
    int farthest = horizon;
    for (int i = 0; i < count; i++) {
      Sequence sequence = running[i];
      if (sequence != null) {
        if (sequence.planned() >= sequence.expectedEnd) {
          expect(sequence);
        } else if (learned) {
          sequence.expectedEnd = expectedEnd(sequence);
        }
        farthest = Math.max(farthest, growth(sequence));
      }
    }
    forecast.begin(farthest);
    doubt = 0;
    long owned = 0;
    for (int i = 0; i < count; i++) {
      Sequence sequence = running[i];
      if (sequence != null) {
        int growth = growth(sequence);
        owned += sequence.owned;
        forecast.count(
            tokens(sequence, sequence.owned, sequence.blockCount + sequence.reserved), growth);
        doubt += doubt(sequence, growth);
      }
    }
    forecast.settle();
    // Shared blocks whose first owner has ended are held for as long as anybody knows.
    long shared = blocks.count() - blocks.available() - owned;
    memory = (blocks.count() - shared) * blocks.blockSize();
    current = true;
  }

  private void learn(@Nullable Sequence[] running, int count) {
    lengths.forgetRunning();
    for (int i = 0; i < count; i++) {
      Sequence sequence = running[i];
      if (sequence != null && sequence.stops.length > 0) {
        lengths.running(sequence.generated());
      }
    }
    lengths.learn();
    news = 0;
    age = 0;
  }

  /** Gives a sequence an end. */
  private void expect(Sequence sequence) {
    double spread = ++draws * GOLDEN;
    sequence.drawn = spread - Math.floor(spread);
    sequence.drawnAt = Math.max(sequence.generated(), sequence.minTokens);
    sequence.expectedEnd = expectedEnd(sequence);
  }

  private int expectedEnd(Sequence sequence) {
    if (sequence.stops.length == 0 || sequence.preempted >= PATIENCE) {
      return sequence.limit;
    }
    double longer = (1 - sequence.drawn) / (1 << (2 * sequence.preempted));
    long end = (long) sequence.promptLength + lengths.quantile(sequence.drawnAt, 1 - longer);
    return (int) Math.min(sequence.limit, Math.max(end, sequence.planned() + 1L));
  }

  /** Tokens that are still to have keys and values; those of the last nobody needs. */
  private static int growth(Sequence sequence) {
    return Math.max(0, sequence.expectedEnd - 1 - sequence.planned());
  }

  private static double doubt(Sequence sequence, int growth) {
    return sequence.expectedEnd < sequence.limit ? (double) growth * growth : 0;
  }

  /** Tokens that it holds memory for, but for those in blocks that are others'. */
  private long tokens(Sequence sequence, int owned, int all) {
    int now = Math.min(sequence.planned(), sequence.limit - 1);
    return now - (long) (all - owned) * blocks.blockSize();
  }

  /** Who gives way, of those that run; null if nobody runs. */
  static @Nullable Sequence first(@Nullable Sequence[] running, int count, boolean isolating) {
    Comparator<Sequence> order = isolating ? PAUSED : STAYS;
    Sequence first = null;
    for (int i = 0; i < count; i++) {
      Sequence sequence = running[i];
      if (sequence != null && (first == null || order.compare(sequence, first) > 0)) {
        first = sequence;
      }
    }
    return first;
  }

  /**
   * The greatest is the first to go: those that wait to be allowed more, which have nothing to do,
   * before others; those whose last token is under way, which are about to leave, after all.
   */
  private static final Comparator<Sequence> STAYS =
      Comparator.<Sequence, Boolean>comparing(s -> s.planned() < s.limit)
          .thenComparing(Sequence::held)
          .thenComparing(s -> s.preempted < PATIENCE)
          .thenComparing(Sequence.ORDER);

  private static final Comparator<Sequence> PAUSED =
      Comparator.<Sequence, Boolean>comparing(s -> !s.suspect).thenComparing(STAYS);
}
