package dev.millrace.inference.sampling;

import dev.millrace.inference.api.SamplingParams;
import dev.millrace.inference.api.TokenLogprob;
import java.util.Arrays;
import java.util.Objects;
import org.jspecify.annotations.Nullable;

/**
 * Draws tokens from logits: a pure function of (logits, {@link SamplingState}), and the reference
 * that samplers on other devices are tested against. Holds scratch memory, so each thread has its
 * own. The token at position {@code p} is found like this:
 *
 * <ol>
 *   <li>Penalties. For each token that occurs in prompt or output: a positive logit is divided by
 *       the repetition penalty, another one multiplied by it. For each that occurs c times in the
 *       output: minus c · frequencyPenalty, minus presencePenalty.
 *   <li>Before minTokens were generated the stop tokens' logits are -infinity.
 *   <li>Temperature 0: the largest logit wins, of equal ones the lowest id. That is all.
 *   <li>x = (logit - largest logit) / temperature, in double.
 *   <li>Filters, each of which keeps the first ones in the order (logit descending, id ascending):
 *       topK many; of these, the fewest whose share of exp(x) reaches topP; those with exp(x) ≥
 *       minP.
 *   <li>The kept token with the largest x + g wins, of equal ones the lowest id, where g =
 *       -ln(-ln(u)) is Gumbel noise: this draws each token with its probability (the Gumbel-max
 *       trick). Noise is a token's own, so that no order of summation matters and a parallel argmax
 *       computes the same: u = ((h &gt;&gt;&gt; 12) + 0.5) · 2^-52 with h = mix(mix(mix(seed) + G ·
 *       (p + 1)) + G · (token + 1)), G = 0x9E3779B97F4A7C15, and mix the finaliser of SplitMix64
 *       (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
 * </ol>
 */
public final class Sampler {
  /** Returned where the logits are not numbers (NaN, +infinity, or all -infinity). */
  public static final int FAILED = -1;

  private static final long GOLDEN = 0x9E3779B97F4A7C15L;
  private static final double LN2 = StrictMath.log(2);

  private final int vocabSize;

  /** Logits after penalties and masks, where there are any. */
  private final float[] changed;

  /** Candidates as (logit descending, id ascending); see {@link #key}. */
  private final long[] keys;

  private @Nullable TokenLogprob logprob;

  public Sampler(int vocabSize) {
    if (vocabSize < 1) {
      throw new IllegalArgumentException("vocabSize is " + vocabSize + ", it must be 1 or more");
    }
    this.vocabSize = vocabSize;
    this.changed = new float[vocabSize];
    this.keys = new long[vocabSize];
  }

  /**
   * The token at {@link SamplingState#position()}. The caller appends it to the state.
   *
   * @param logits [offset, offset + vocabSize) is the row; left as it is
   * @return the token, or {@link #FAILED}
   */
  public int sample(float[] logits, int offset, SamplingState state) {
    Objects.checkFromIndexSize(offset, vocabSize, logits.length);
    logprob = null;
    int best = largest(logits, offset);
    if (best == FAILED) {
      return FAILED;
    }
    float max = logits[offset + best];
    SamplingParams params = state.params();
    int token;
    if (params.hasPenalties() || state.masksStopTokens()) {
      System.arraycopy(logits, offset, changed, 0, vocabSize);
      penalise(state);
      token = choose(changed, 0, largest(changed, 0), state);
    } else {
      token = choose(logits, offset, best, state);
    }
    if (params.logprobs() >= 0 && token != FAILED) {
      logprob = logprobs(logits, offset, max, token, params.logprobs());
    }
    return token;
  }

  /**
   * Log-probabilities of the row that {@link #sample} saw last, or null if its parameters ask for
   * none or it failed.
   */
  public @Nullable TokenLogprob logprob() {
    return logprob;
  }

  /** The lowest id of the largest logit, or FAILED. */
  private int largest(float[] row, int offset) {
    float max = Float.NEGATIVE_INFINITY;
    int best = FAILED;
    for (int i = 0; i < vocabSize; i++) {
      float x = row[offset + i];
      if (!(x < Float.POSITIVE_INFINITY)) {
        return FAILED; // NaN as well
      }
      if (x > max) {
        max = x;
        best = i;
      }
    }
    return best;
  }

  private void penalise(SamplingState state) {
    SamplingParams params = state.params();
    if (params.hasPenalties()) {
      TokenCounts counts = state.counts();
      for (int i = 0; i < counts.size(); i++) {
        int token = counts.token(i);
        float x = changed[token];
        x = x > 0 ? x / params.repetitionPenalty() : x * params.repetitionPenalty();
        int count = counts.count(i);
        if (count > 0) {
          x -= count * params.frequencyPenalty() + params.presencePenalty();
        }
        changed[token] = x;
      }
    }
    if (state.masksStopTokens()) {
      for (int token : state.stopTokens()) {
        if (token < vocabSize) {
          changed[token] = Float.NEGATIVE_INFINITY;
        }
      }
    }
  }

  private int choose(float[] row, int offset, int best, SamplingState state) {
    SamplingParams params = state.params();
    if (best == FAILED || params.temperature() == 0 || params.topK() == 1) {
      return best;
    }
    Race race = new Race(row, offset, best, state);
    boolean filtered = params.topP() < 1 || (params.topK() > 0 && params.topK() < vocabSize);
    if (filtered) {
      int kept = filter(row, offset, race, params);
      for (int i = 0; i < kept; i++) {
        race.enter((int) keys[i]);
      }
    } else {
      for (int i = 0; i < vocabSize; i++) {
        race.enter(i);
      }
    }
    return race.winner;
  }

  /** Moves the candidates that topK and topP keep to the front of keys and returns their number. */
  private int filter(float[] row, int offset, Race race, SamplingParams params) {
    int count = 0;
    for (int i = 0; i < vocabSize; i++) {
      if (row[offset + i] > Float.NEGATIVE_INFINITY) {
        keys[count++] = key(row[offset + i], i);
      }
    }
    if (params.topK() > 0 && params.topK() < count) {
      selectSmallest(keys, 0, count, params.topK());
      count = params.topK();
    }
    if (params.topP() == 1) {
      return count;
    }
    double total = 0;
    for (int i = 0; i < count; i++) {
      total += StrictMath.exp(race.scaled((int) keys[i]));
    }
    double wanted = params.topP() * total;
    // Only as much is sorted as is needed: the first candidates usually hold nearly everything.
    double sum = 0;
    int sorted = 0;
    for (int front = 64; sorted < count; front *= 4) {
      int end = Math.min(front, count);
      selectSmallest(keys, sorted, count, end - sorted);
      Arrays.sort(keys, sorted, end);
      for (int i = sorted; i < end; i++) {
        sum += StrictMath.exp(race.scaled((int) keys[i]));
        if (sum >= wanted) {
          return i + 1;
        }
      }
      sorted = end;
    }
    return count; // rounding kept the sum below topP · total
  }

  /** Ascending keys are descending logits, and of equal logits ascending ids. */
  static long key(float logit, int token) {
    int bits = Float.floatToIntBits(logit + 0f); // makes -0 the equal of 0
    int ascending = bits ^ ((bits >> 31) & 0x7fffffff);
    return ((long) ~ascending << 32) | token;
  }

  /** Moves the {@code count} smallest of keys[from, to) to its front, in any order. */
  static void selectSmallest(long[] keys, int from, int to, int count) {
    int low = from;
    int high = to - 1;
    int border = from + count;
    while (low < high && border > low && border <= high) {
      long pivot = median(keys[low], keys[(low + high) >>> 1], keys[high]);
      int left = low;
      int right = high;
      while (left <= right) {
        while (keys[left] < pivot) {
          left++;
        }
        while (keys[right] > pivot) {
          right--;
        }
        if (left <= right) {
          long swapped = keys[left];
          keys[left++] = keys[right];
          keys[right--] = swapped;
        }
      }
      // [low, right] ≤ pivot, [left, high] ≥ pivot, and what is between equals it.
      if (border <= right) {
        high = right;
      } else if (border > left) {
        low = left;
      } else {
        return;
      }
    }
  }

  private static long median(long a, long b, long c) {
    return Math.max(Math.min(a, b), Math.min(Math.max(a, b), c));
  }

  private TokenLogprob logprobs(float[] row, int offset, float max, int token, int top) {
    int count = Math.min(top, vocabSize);
    int[] tokens = new int[count];
    float[] values = new float[count];
    int held = 0;
    double sum = 0;
    for (int i = 0; i < vocabSize; i++) {
      float x = row[offset + i];
      sum += Math.exp((double) x - max);
      if (held < count || (count > 0 && x > values[count - 1])) {
        int at = held < count ? held++ : count - 1;
        while (at > 0 && x > values[at - 1]) {
          values[at] = values[at - 1];
          tokens[at] = tokens[at - 1];
          at--;
        }
        values[at] = x;
        tokens[at] = i;
      }
    }
    double norm = max + Math.log(sum);
    for (int i = 0; i < count; i++) {
      values[i] = (float) (values[i] - norm);
    }
    return new TokenLogprob(token, (float) (row[offset + token] - norm), tokens, values);
  }

  /** The random stream of one token position. */
  public static long stream(long seed, int position) {
    return mix(mix(seed) + GOLDEN * (position + 1L));
  }

  /** In (0, 1), exact in 53 bits. */
  static double uniform(long stream, int token) {
    return ((mix(stream + GOLDEN * (token + 1L)) >>> 12) + 0.5) * 0x1p-52;
  }

  private static long mix(long z) {
    z = (z ^ (z >>> 30)) * 0xBF58476D1CE4E5B9L;
    z = (z ^ (z >>> 27)) * 0x94D049BB133111EBL;
    return z ^ (z >>> 31);
  }

  /** The Gumbel-max draw over the tokens that enter, in any order. */
  private static final class Race {
    private final float[] row;
    private final int offset;
    private final double max;
    private final double temperature;
    private final double floor;
    private final long stream;
    private double best = Double.NEGATIVE_INFINITY;
    int winner;

    /** The likeliest token enters first, so that most others are seen to lose at once. */
    Race(float[] row, int offset, int likeliest, SamplingState state) {
      this.row = row;
      this.offset = offset;
      this.max = row[offset + likeliest];
      this.temperature = state.params().temperature();
      this.floor = StrictMath.log(state.params().minP()); // -infinity where it is off
      this.stream = stream(state.params().seed(), state.position());
      this.winner = likeliest;
      enter(likeliest);
    }

    double scaled(int token) {
      return (row[offset + token] - max) / temperature;
    }

    void enter(int token) {
      double x = scaled(token);
      if (x < floor || x == Double.NEGATIVE_INFINITY) {
        return;
      }
      double u = uniform(stream, token);
      // -ln(u) > 1 - u ≥ 2^e, so the noise is below -e · ln 2: two logarithms saved for most.
      if (x - Math.getExponent(1 - u) * LN2 + 1e-9 < best) {
        return;
      }
      double score = x - StrictMath.log(-StrictMath.log(u));
      if (score > best || (score == best && token < winner)) {
        best = score;
        winner = token;
      }
    }
  }
}
