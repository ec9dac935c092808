package dev.millrace.inference.sampling;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import dev.millrace.inference.api.SamplingParams;
import dev.millrace.inference.api.TokenLogprob;
import java.util.Arrays;
import java.util.Comparator;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Random;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Test;

class SamplerTest {
  private static final int[] NONE = {};
  private static final float MINUS_INFINITY = Float.NEGATIVE_INFINITY;

  @Test
  void shouldTakeTheLowestIdOfEqualLogitsWhenGreedy() {
    assertThat(greedy(1, 3, 3, 2)).isEqualTo(1);
    assertThat(greedy(-0f, 0f, -1)).isZero();
    assertThat(greedy(MINUS_INFINITY, -7, -8)).isEqualTo(1);
  }

  @Test
  void shouldFailTheRowWhoseLogitsAreNotNumbers() {
    assertThat(greedy(1, Float.NaN, 3)).isEqualTo(Sampler.FAILED);
    assertThat(greedy(1, Float.POSITIVE_INFINITY, 3)).isEqualTo(Sampler.FAILED);
    assertThat(greedy(MINUS_INFINITY, MINUS_INFINITY)).isEqualTo(Sampler.FAILED);
  }

  @Test
  void shouldFailTheRowWhereOnlyMaskedTokensAreLeft() {
    SamplingParams params = new Params().minTokens(1).build();
    SamplingState state = new SamplingState(params, new int[] {0}, NONE, new int[] {0, 1});
    assertThat(new Sampler(2).sample(new float[] {1, 2}, 0, state)).isEqualTo(Sampler.FAILED);
  }

  @Test
  void shouldHaveNoLogprobOfAFailedRow() {
    Sampler sampler = new Sampler(2);
    SamplingState state = state(new Params().logprobs(1).build(), 0);
    sampler.sample(new float[] {1, 2}, 0, state);
    assertThat(sampler.logprob()).isNotNull();
    sampler.sample(new float[] {1, Float.NaN}, 0, state);
    assertThat(sampler.logprob()).isNull();
  }

  @Test
  void shouldDrawTheSameNoiseAsTheDocumentedFormula() {
    // From an implementation of the formula in another language.
    assertThat(Sampler.uniform(Sampler.stream(0, 0), 0)).isEqualTo(0.6524484863740322);
    assertThat(Sampler.uniform(Sampler.stream(42, 7), 123)).isEqualTo(0.19041522621296225);
    assertThat(Sampler.uniform(Sampler.stream(-1, 131071), 128255)).isEqualTo(0.9701188918935338);
  }

  @Test
  void shouldDoWhatTheReferenceDoes() {
    for (int seed = 0; seed < 3000; seed++) {
      Random random = new Random(seed);
      int vocab = 1 + random.nextInt(random.nextBoolean() ? 12 : 700);
      float[] row = randomRow(random, vocab);
      SamplingParams params = randomParams(random, vocab);
      int[] prompt = random.ints(1 + random.nextInt(20), 0, vocab).toArray();
      int[] output = random.ints(random.nextInt(20), 0, vocab).toArray();
      int[] stops = random.ints(random.nextInt(3), 0, vocab).toArray();
      SamplingState state = new SamplingState(params, prompt, output, stops);
      if (IntStream.range(0, vocab)
          .allMatch(i -> ReferenceSampler.penalised(row, state)[i] == MINUS_INFINITY)) {
        continue;
      }
      int offset = random.nextInt(3);
      float[] logits = new float[offset + vocab + 2];
      Arrays.fill(logits, 1000); // what lies beside the row must not matter
      System.arraycopy(row, 0, logits, offset, vocab);
      float[] before = logits.clone();

      Sampler sampler = new Sampler(vocab);
      for (int step = 0; step < 3; step++) {
        int token = sampler.sample(logits, offset, state);
        assertThat(token)
            .as("seed %d, step %d, %s", seed, step, params)
            .isEqualTo(ReferenceSampler.sample(row, state));
        state.append(token);
      }
      assertThat(logits).as("logits are left as they are, seed %d", seed).isEqualTo(before);
    }
  }

  @Test
  void shouldDrawEachTokenAsOftenAsItsProbabilitySays() {
    float[] row = {2, 1, 0.5f, 0, 0, -0.5f, -1, -3, MINUS_INFINITY, 1.5f};
    for (SamplingParams params :
        List.of(
            new Params().temperature(1).build(),
            new Params().temperature(0.7f).build(),
            new Params().temperature(3).build(),
            new Params().temperature(1).topK(4).build(),
            new Params().temperature(1).topP(0.8f).build(),
            new Params().temperature(1.5f).minP(0.2f).build(),
            new Params().temperature(2).topK(7).topP(0.9f).minP(0.1f).build())) {
      List<Integer> kept = ReferenceSampler.kept(row, params);
      double total = 0;
      for (int i : kept) {
        total += Math.exp(row[i] / params.temperature());
      }
      // One draw at each of many positions: fixed seeds, so that the outcome is always the same.
      int draws = 40_000;
      int[] seen = new int[row.length];
      Sampler sampler = new Sampler(row.length);
      SamplingState state = state(params, 0);
      for (int i = 0; i < draws; i++) {
        int token = sampler.sample(row, 0, state);
        seen[token]++;
        state.append(token);
      }
      double chiSquare = 0;
      for (int i : kept) {
        double expected = draws * Math.exp(row[i] / params.temperature()) / total;
        chiSquare += (seen[i] - expected) * (seen[i] - expected) / expected;
      }
      assertThat(kept.stream().mapToInt(i -> seen[i]).sum())
          .as("nothing but %s is drawn with %s", kept, params)
          .isEqualTo(draws);
      // The 99.9 % points of chi-square with 1 to 9 degrees of freedom.
      double[] limit = {10.83, 13.82, 16.27, 18.47, 20.52, 22.46, 24.32, 26.12, 27.88};
      assertThat(chiSquare).as("chi-square with %s", params).isLessThan(limit[kept.size() - 2]);
    }
  }

  @Test
  void shouldDrawIndependentlyAtPositionsSeedsAndTokens() {
    float[] even = new float[8];
    Sampler sampler = new Sampler(8);
    int draws = 64_000;
    int[] positions = new int[64];
    int[] seeds = new int[64];
    int before = 0;
    int beforeSeed = 0;
    SamplingState state = state(new Params().temperature(1).seed(5).build(), 0);
    for (int i = 0; i < draws; i++) {
      int token = sampler.sample(even, 0, state);
      state.append(token);
      positions[before * 8 + token]++;
      before = token;
      int other =
          sampler.sample(even, 0, state(new Params().temperature(1).seed(i * 0x10001L).build(), 0));
      seeds[beforeSeed * 8 + other]++;
      beforeSeed = other;
    }
    // 64 pairs equally often: 63 degrees of freedom, 99.9 % point 103.4.
    assertThat(evenness(positions, draws)).as("of neighbouring positions").isLessThan(103.4);
    assertThat(evenness(seeds, draws)).as("of neighbouring seeds").isLessThan(103.4);
  }

  @Test
  void shouldDependOnSeedAndPositionButNotOnWhatCameBefore() {
    float[] row = randomRow(new Random(1), 500);
    SamplingParams params = new Params().temperature(2).seed(9).build();
    Sampler sampler = new Sampler(500);
    SamplingState one = new SamplingState(params, new int[] {1, 2, 3}, new int[] {4}, NONE);
    SamplingState resumed = new SamplingState(params, new int[] {7}, new int[] {8, 9, 9}, NONE);
    for (int i = 0; i < 50; i++) {
      int token = sampler.sample(row, 0, one);
      assertThat(sampler.sample(row, 0, resumed)).isEqualTo(token);
      one.append(token);
      resumed.append(0);
    }
  }

  @Test
  void shouldNotDrawStopTokensBeforeMinTokens() {
    SamplingParams params = new Params().minTokens(3).build();
    SamplingState state = new SamplingState(params, new int[] {0}, new int[] {1}, new int[] {2});
    Sampler sampler = new Sampler(3);
    float[] row = {1, 2, 9};
    for (int expected : new int[] {1, 1, 2}) {
      int token = sampler.sample(row, 0, state);
      assertThat(token).as("after %d tokens", state.generated()).isEqualTo(expected);
      state.append(token);
    }
  }

  @Test
  void shouldReportLogprobsOfTheLogitsAsTheyCame() {
    float[] row = {1, 3, MINUS_INFINITY, 3, 2, -40};
    double norm = Math.log(Math.exp(1) + 2 * Math.exp(3) + Math.exp(2) + Math.exp(-40));
    // The penalty moves the choice to token 3; the report is of before.
    SamplingParams params = new Params().logprobs(3).presence(1).build();
    SamplingState state = new SamplingState(params, new int[] {0}, new int[] {1}, NONE);
    Sampler sampler = new Sampler(row.length);
    assertThat(sampler.sample(row, 0, state)).isEqualTo(3);
    TokenLogprob logprob = Objects.requireNonNull(sampler.logprob());
    assertThat(logprob.token()).isEqualTo(3);
    assertThat(logprob.logprob()).isCloseTo((float) (3 - norm), within(1e-6f));
    assertThat(logprob.topTokens()).containsExactly(1, 3, 4);
    assertThat(logprob.topLogprobs())
        .containsExactly(
            new float[] {(float) (3 - norm), (float) (3 - norm), (float) (2 - norm)},
            within(1e-6f));
  }

  @Test
  void shouldReportAsManyLogprobsAsAskedFor() {
    Random random = new Random(3);
    float[] row = randomRow(random, 300);
    List<Integer> order =
        IntStream.range(0, 300)
            .boxed()
            .sorted(Comparator.<Integer>comparingDouble(i -> -(double) row[i]))
            .toList();
    Sampler sampler = new Sampler(300);
    sampler.sample(row, 0, state(new Params().logprobs(20).build(), 0));
    assertThat(Objects.requireNonNull(sampler.logprob()).topTokens())
        .containsExactly(order.stream().limit(20).mapToInt(i -> i).toArray());
    sampler.sample(row, 0, state(new Params().logprobs(0).build(), 0));
    assertThat(Objects.requireNonNull(sampler.logprob()).topTokens()).isEmpty();
    sampler.sample(row, 0, state(new Params().build(), 0));
    assertThat(sampler.logprob()).isNull();
  }

  @Test
  void shouldSelectTheSmallestKeys() {
    for (int seed = 0; seed < 2000; seed++) {
      Random random = new Random(seed);
      int size = 1 + random.nextInt(60);
      long[] keys = random.longs(size, 0, 1 + random.nextInt(100)).toArray();
      long[] sorted = keys.clone();
      Arrays.sort(sorted);
      int count = random.nextInt(size + 1);
      Sampler.selectSmallest(keys, 0, size, count);
      long[] front = Arrays.copyOf(keys, count);
      Arrays.sort(front);
      assertThat(front).as("seed %d", seed).isEqualTo(Arrays.copyOf(sorted, count));
      Arrays.sort(keys);
      assertThat(keys).as("seed %d", seed).isEqualTo(sorted);
    }
  }

  @Test
  void shouldCountTokens() {
    for (int seed = 0; seed < 200; seed++) {
      Random random = new Random(seed);
      TokenCounts counts = new TokenCounts(random.nextInt(40));
      Map<Integer, Integer> expected = new HashMap<>();
      for (int i = 0; i < 3000; i++) {
        int token = random.nextInt(2) * 65536 + random.nextInt(1 + seed * 10);
        int count = random.nextInt(2);
        counts.add(token, count);
        expected.merge(token, count, Integer::sum);
      }
      Map<Integer, Integer> actual = new HashMap<>();
      for (int i = 0; i < counts.size(); i++) {
        actual.put(counts.token(i), counts.count(i));
      }
      assertThat(actual).as("seed %d", seed).isEqualTo(expected).hasSize(counts.size());
    }
  }

  @Test
  void shouldKeepEveryTokenOfAState() {
    SamplingState state =
        new SamplingState(SamplingParams.greedy(500), new int[] {5, 6}, new int[] {7}, NONE);
    for (int i = 0; i < 300; i++) {
      state.append(i);
      state.append(Sampler.FAILED);
    }
    assertThat(state.position()).isEqualTo(303);
    assertThat(state.generated()).isEqualTo(301);
    assertThat(state.promptLength()).isEqualTo(2);
    int[] tokens = IntStream.range(0, 303).map(state::token).toArray();
    assertThat(tokens).startsWith(5, 6, 7, 0, 1).endsWith(298, 299);
    assertThatThrownBy(() -> state.token(303)).isInstanceOf(IndexOutOfBoundsException.class);
  }

  @Test
  void shouldRefuseARowThatIsTooShort() {
    Sampler sampler = new Sampler(4);
    SamplingState state = state(SamplingParams.greedy(1), 0);
    assertThatThrownBy(() -> sampler.sample(new float[5], 2, state))
        .isInstanceOf(IndexOutOfBoundsException.class);
  }

  private static double evenness(int[] seen, int draws) {
    double expected = (double) draws / seen.length;
    return Arrays.stream(seen).mapToDouble(n -> (n - expected) * (n - expected) / expected).sum();
  }

  private static int greedy(float... row) {
    return new Sampler(row.length).sample(row, 0, state(SamplingParams.greedy(1), 0));
  }

  private static SamplingState state(SamplingParams params, int... prompt) {
    return new SamplingState(params, prompt, NONE, NONE);
  }

  private static float[] randomRow(Random random, int vocab) {
    float[] row = new float[vocab];
    float spread = random.nextInt(4) == 0 ? 0.01f : 1 + random.nextInt(15);
    boolean coarse = random.nextInt(3) == 0; // many equal logits
    for (int i = 0; i < vocab; i++) {
      float x = (float) random.nextGaussian() * spread;
      row[i] = coarse ? Math.round(x) : x;
      if (random.nextInt(20) == 0) {
        row[i] = random.nextBoolean() ? MINUS_INFINITY : -0f;
      }
    }
    row[random.nextInt(vocab)] = 1;
    return row;
  }

  private static SamplingParams randomParams(Random random, int vocab) {
    Params params = new Params().seed(random.nextLong());
    params.temperature(
        random.nextInt(8) == 0 ? 0 : random.nextInt(8) == 0 ? 1e-30f : 3 * random.nextFloat());
    if (random.nextBoolean()) {
      params.topK(random.nextInt(vocab + 2));
    }
    if (random.nextBoolean()) {
      params.topP(Math.max(1e-3f, random.nextFloat()));
    }
    if (random.nextInt(3) == 0) {
      params.minP(random.nextFloat());
    }
    if (random.nextBoolean()) {
      params.repetition(0.5f + random.nextFloat());
      params.presence(2 * random.nextFloat() - 1);
      params.frequency(2 * random.nextFloat() - 1);
    }
    return params.minTokens(random.nextInt(30)).build();
  }

  /** One parameter at a time. */
  private static final class Params {
    private float temperature;
    private float topP = 1;
    private int topK;
    private float minP;
    private float repetition = 1;
    private float presence;
    private float frequency;
    private long seed;
    private int minTokens;
    private int logprobs = -1;

    Params temperature(float value) {
      temperature = value;
      return this;
    }

    Params topP(float value) {
      topP = value;
      return this;
    }

    Params topK(int value) {
      topK = value;
      return this;
    }

    Params minP(float value) {
      minP = value;
      return this;
    }

    Params repetition(float value) {
      repetition = value;
      return this;
    }

    Params presence(float value) {
      presence = value;
      return this;
    }

    Params frequency(float value) {
      frequency = value;
      return this;
    }

    Params seed(long value) {
      seed = value;
      return this;
    }

    Params minTokens(int value) {
      minTokens = value;
      return this;
    }

    Params logprobs(int value) {
      logprobs = value;
      return this;
    }

    SamplingParams build() {
      return new SamplingParams(
          temperature,
          topP,
          topK,
          minP,
          repetition,
          presence,
          frequency,
          seed,
          1_000_000,
          minTokens,
          List.of(),
          false,
          logprobs);
    }
  }
}
