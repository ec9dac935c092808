package dev.millrace.inference.backend.cuda;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import dev.millrace.inference.api.SamplingParams;
import dev.millrace.inference.api.TokenLogprob;
import dev.millrace.inference.backend.Sampled;
import dev.millrace.inference.backend.Tensor;
import dev.millrace.inference.engine.Batch;
import dev.millrace.inference.model.TestSequence;
import dev.millrace.inference.model.TestSequence.Part;
import dev.millrace.inference.sampling.Sampler;
import dev.millrace.inference.sampling.SamplingState;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** The GPU draws the tokens that the Java sampler draws. */
class CudaSamplingTest {
  private static final long SEED = 20_261_121;
  private static final int ROWS = 200;

  private final CudaBackend backend = Gpu.open();
  private final Random random = new Random(SEED);

  /** Of the rows: what the GPU is given, and as many for the reference. */
  private final List<SamplingState> states = new ArrayList<>();

  private final List<SamplingState> expected = new ArrayList<>();

  @AfterEach
  void close() {
    backend.close();
  }

  @ParameterizedTest
  @ValueSource(ints = {1, 7, 80, 1000, 4099, 128_256})
  void shouldDrawWhatTheReferenceDraws(int vocab) {
    float[] logits = logits(vocab);
    for (int row = 0; row < ROWS; row++) {
      SamplingParams params = params(row);
      int[] prompt = random.ints(1 + random.nextInt(20), 0, vocab).toArray();
      int[] output = random.ints(random.nextInt(20), 0, vocab).toArray();
      int[] stops = row % 5 == 0 ? new int[] {0, vocab / 2, vocab + 3} : new int[0];
      add(params, prompt, output, stops);
    }
    checkDrawn(logits, vocab);
  }

  /** Of few rows each is shared by eight, four or two blocks where the GPU has clusters. */
  @ParameterizedTest
  @ValueSource(ints = {1, 2, 12, 13, 24, 25, 49, 50})
  void shouldDrawTheSameOfFewRows(int rows) {
    int vocab = 40_003 + rows % 2; // one is no multiple of four
    float[] logits = logits(vocab);
    for (int row = 0; row < rows; row++) {
      SamplingParams params = params(rows < 8 ? 7 * row + 1 : row);
      int[] prompt = random.ints(1 + random.nextInt(20), 0, vocab).toArray();
      add(params, prompt, new int[0], new int[] {3});
    }
    checkDrawn(logits, vocab);
  }

  /** What is kept ends among thousands of tokens that are equally likely. */
  @ParameterizedTest
  @ValueSource(ints = {1, 20, 200})
  void shouldEndWhatIsKeptAmongEqualsByTheirIds(int rows) {
    int vocab = 20_000;
    float[] logits = new float[ROWS * vocab];
    for (int i = 0; i < logits.length; i++) {
      logits[i] = random.nextInt(3) / 4f;
    }
    for (int row = 0; row < rows; row++) {
      SamplingParams params =
          new SamplingParams(
              row % 4 == 3 ? 50 : 1,
              row % 2 == 0 ? 1 : 0.37f,
              row % 2 == 1 && row % 3 == 0 ? 0 : 1 + random.nextInt(vocab),
              0,
              1,
              0,
              0,
              random.nextLong(),
              9,
              0,
              List.of(),
              false,
              -1);
      add(params, new int[] {1}, new int[0], new int[0]);
    }
    checkDrawn(logits, vocab);
  }

  /** What parameters and logits may be at their ends, and a bin that is just not too full. */
  @ParameterizedTest
  @ValueSource(ints = {5, 200})
  void shouldDrawWhatTheReferenceDrawsAtTheEnds(int rows) {
    int vocab = 3_000;
    float[] logits = logits(vocab);
    float[] temperatures = {1e-5f, 0.01f, 0.1f, 3, 100, Float.MIN_VALUE};
    for (int row = 0; row < rows; row++) {
      int kind = rows < 10 ? 3 * row : row;
      int first = row * vocab;
      switch (kind % 5) {
        case 0 -> {
          // Most tokens are out of the question before anything is filtered.
          for (int i = 0; i < vocab; i++) {
            logits[first + i] = i % 7 == 3 ? logits[first + i] : Float.NEGATIVE_INFINITY;
          }
        }
        case 1, 2 -> {
          // The end of what is kept lies among exactly so many equals.
          Arrays.fill(logits, first, first + vocab, -20);
          Arrays.fill(logits, first + 9, first + 9 + 1023 + kind % 5, 3);
          logits[first + 2_999] = 5;
        }
        default -> {}
      }
      boolean ends = kind % 5 == 1 || kind % 5 == 2;
      SamplingParams params =
          new SamplingParams(
              ends ? 1 : temperatures[row % temperatures.length],
              kind % 3 == 0 || ends ? 0.5f : 0.999_999f,
              kind % 3 == 1 ? vocab - row : kind % 3 == 2 ? 400 : 0,
              0,
              1,
              0,
              0,
              random.nextLong(),
              9,
              0,
              List.of(),
              false,
              -1);
      add(params, new int[] {1}, new int[0], new int[0]);
    }
    checkDrawn(logits, vocab);
  }

  @ParameterizedTest
  @ValueSource(ints = {3, 20, 200})
  void shouldCountATokenThatTheHostDoesNotKnowYet(int rows) {
    int vocab = 500;
    for (int row = 0; row < rows; row++) {
      SamplingParams params =
          new SamplingParams(
              row % 3 == 0 ? 0 : 0.8f, 1, 0, 0, 1.3f, 0.7f, 0.9f, row, 99, 0, List.of(), false, 3);
      int[] prompt = random.ints(4, 0, vocab).toArray();
      add(params, prompt, new int[0], new int[0]);
    }
    float[] first = logits(vocab);
    Batch batch = batch(states);
    Sampled before = backend.sample(backend.begin(batch, null), tensor(first, vocab));
    // The same logits again: the token just drawn is likely, and now penalised.
    Batch next = batch(states);
    for (int row = 0; row < rows; row++) {
      next.positions[row]++;
      next.tokenFrom[row] = row;
    }
    Sampled after = backend.sample(backend.begin(next, before), tensor(first, vocab));
    check(before, first, vocab);
    check(after, first, vocab);
    assertThat(states.getFirst().generated()).isEqualTo(2);
  }

  @Test
  void shouldDrawOnForRowsThatStayWhileOthersComeAndGo() {
    int vocab = 300;
    for (int step = 0; step < 20; step++) {
      for (int row = states.size() - 1; row >= 0; row--) {
        if (random.nextInt(8) == 0) {
          states.remove(row);
          expected.remove(row);
        }
      }
      for (int count = 1 + random.nextInt(ROWS); states.size() < count; ) {
        SamplingParams params = params(random.nextInt(ROWS));
        int[] prompt = random.ints(1 + random.nextInt(20), 0, vocab).toArray();
        int[] stops = random.nextBoolean() ? new int[] {0, vocab / 2} : new int[0];
        add(params, prompt, new int[0], stops);
      }
      Batch batch = batch(states);
      for (int row = 0; row < states.size(); row++) {
        batch.positions[row] = expected.get(row).position() - 1;
      }
      float[] logits = logits(vocab);
      Sampled sampled = backend.sample(backend.begin(batch, null), tensor(logits, vocab));
      check(sampled, logits, vocab);
    }
  }

  @ParameterizedTest
  @ValueSource(ints = {5, 20, 200})
  void shouldFailRowsThatAreNoNumbersAndNoOthers(int rows) {
    int vocab = 300;
    float[] logits = logits(vocab);
    logits[17] = Float.NaN;
    logits[2 * vocab + 299] = Float.POSITIVE_INFINITY;
    Arrays.fill(logits, 3 * vocab, 4 * vocab, Float.NEGATIVE_INFINITY);
    for (int row = 0; row < rows; row++) {
      add(params(row), new int[] {1}, new int[0], new int[0]);
    }
    int[] tokens =
        backend.sample(backend.begin(batch(states), null), tensor(logits, vocab)).tokens();
    for (int row = 0; row < rows; row++) {
      boolean broken = row == 0 || row == 2 || row == 3;
      assertThat(tokens[row] == Sampler.FAILED).as("row %d", row).isEqualTo(broken);
    }
  }

  private void add(SamplingParams params, int[] prompt, int[] output, int[] stops) {
    states.add(new SamplingState(params, prompt, output, stops));
    expected.add(new SamplingState(params, prompt, output, stops));
  }

  private void checkDrawn(float[] logits, int vocab) {
    check(backend.sample(backend.begin(batch(states), null), tensor(logits, vocab)), logits, vocab);
  }

  private void check(Sampled sampled, float[] logits, int vocab) {
    Sampler reference = new Sampler(vocab);
    int[] tokens = sampled.tokens();
    for (int row = 0; row < tokens.length; row++) {
      SamplingState state = expected.get(row);
      int token = reference.sample(logits, row * vocab, state);
      String what = "row %d of %d tokens, %s, seed %d".formatted(row, vocab, state.params(), SEED);
      assertThat(tokens[row]).as(what).isEqualTo(token);
      check(what, sampled.logprobs()[row], reference.logprob());
      state.append(token);
    }
  }

  private static void check(
      String what,
      @org.jspecify.annotations.Nullable TokenLogprob actual,
      @org.jspecify.annotations.Nullable TokenLogprob expected) {
    if (expected == null || actual == null) {
      assertThat(actual).as(what).isEqualTo(expected);
      return;
    }
    assertThat(actual.token()).as(what).isEqualTo(expected.token());
    assertThat(actual.logprob()).as(what).isCloseTo(expected.logprob(), within(1e-4f));
    assertThat(actual.topTokens()).as(what).isEqualTo(expected.topTokens());
    assertThat(actual.topLogprobs())
        .as(what)
        .containsExactly(expected.topLogprobs(), within(1e-4f));
  }

  /** Every filter alone, and all together. */
  private SamplingParams params(int row) {
    boolean all = row % 8 == 7;
    int kind = row % 8;
    return new SamplingParams(
        kind == 0 ? 0 : 0.3f + random.nextFloat(),
        all || kind == 1 ? 0.1f + 0.85f * random.nextFloat() : 1,
        all || kind == 2 ? 1 + random.nextInt(60) : 0,
        all || kind == 3 ? 0.3f * random.nextFloat() : 0,
        all || kind == 4 ? 1.2f : 1,
        all || kind == 5 ? 0.5f : 0,
        all || kind == 6 ? -0.4f : 0,
        random.nextLong(),
        100,
        row % 10 == 0 ? 50 : 0,
        List.of(),
        false,
        row % 3 == 0 ? row % 21 : -1);
  }

  /** Rows of different width; many have tokens that are equally likely. */
  private float[] logits(int vocab) {
    float[] logits = new float[ROWS * vocab];
    for (int i = 0; i < logits.length; i++) {
      int row = i / vocab;
      float x = (float) (random.nextGaussian() * (1 + row % 7));
      logits[i] = row % 4 == 1 ? Math.round(2 * x) / 2f : x;
    }
    return logits;
  }

  private Tensor tensor(float[] logits, int vocab) {
    Tensor tensor = backend.logits(ROWS, vocab);
    tensor.fromHost(logits);
    return tensor;
  }

  /** One query token each, whose next is drawn. */
  private static Batch batch(List<SamplingState> states) {
    List<Part> parts = new ArrayList<>();
    for (SamplingState state : states) {
      TestSequence sequence = TestSequence.shuffled(new int[state.position()], 0, SEED);
      parts.add(new Part(sequence, state.position() - 1, state.position()));
    }
    Batch batch = TestSequence.lastLogits(parts);
    for (int row = 0; row < states.size(); row++) {
      batch.sampling[row] = states.get(row);
    }
    return batch;
  }
}
