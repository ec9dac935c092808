package dev.millrace.inference.backend;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import dev.millrace.inference.api.SamplingParams;
import dev.millrace.inference.backend.Backend.Projection;
import dev.millrace.inference.checkpoint.E4m3;
import dev.millrace.inference.checkpoint.Quantization;
import dev.millrace.inference.checkpoint.WeightData;
import dev.millrace.inference.checkpoint.WeightFormat;
import dev.millrace.inference.engine.Batch;
import dev.millrace.inference.model.TestSequence;
import dev.millrace.inference.model.TestSequence.Part;
import dev.millrace.inference.sampling.Sampler;
import dev.millrace.inference.sampling.SamplingState;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.Random;
import java.util.function.IntToDoubleFunction;
import java.util.function.ToDoubleFunction;
import java.util.stream.IntStream;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;

/**
 * Every operation of a backend, in every format and many shapes, against a plain reference in
 * double. A backend takes the test by extending it. Errors are normalised mean squares: Σ(a - b)² /
 * Σb².
 */
public abstract class BackendTest {
  private static final long SEED = 20_260_717;

  private final Random random = new Random(SEED);
  private final Arena arena = Arena.ofShared();
  private Backend backend = open();

  /** A new backend; the test closes it. */
  protected abstract Backend open();

  /** Largest error of an operation; that of float32 activations unless overridden. */
  protected double tolerance() {
    return 1e-11;
  }

  /** Whether the backend rounds what a matrix of FP8 multiplies. */
  protected boolean roundsInputs(WeightData weight) {
    return true;
  }

  /** What the backend keeps of a weight: all of it unless overridden. */
  protected float kept(float weight) {
    return weight;
  }

  @BeforeEach
  void reseed() {
    random.setSeed(SEED);
  }

  @AfterEach
  void close() {
    backend.close();
    arena.close();
  }

  // Linear layers.

  @ParameterizedTest
  @EnumSource(WeightFormat.class)
  void shouldMultiplyByEachFormat(WeightFormat format) {
    for (int rows : new int[] {1, 2, 3, 9, 16, 50, 97}) {
      for (int inputs : new int[] {16, 32, 33, 72, 192, 1100, 1112}) {
        for (int outputs : new int[] {1, 2, 7, 64, 131}) {
          WeightData weight = weight(format, outputs, inputs);
          float[] x = gaussian(rows * inputs);
          float[] bias = outputs % 2 == 0 ? null : gaussian(outputs);
          Tensor out = backend.tensor(rows, outputs);
          backend.linear(
              tensor(x, inputs),
              rows,
              backend.weight(weight),
              bias == null ? null : vector(bias),
              out);
          check(
              "%s %d x %d x %d".formatted(format, rows, inputs, outputs),
              out.toHost(rows),
              product(x, rows, weight, bias));
        }
      }
    }
  }

  @ParameterizedTest
  @EnumSource(names = {"BF16", "F8_E4M3"})
  void shouldMultiplyFewRowsByMatricesOfManyRows(WeightFormat format) {
    // More stretches of rows than a GPU has processors, the last of them short; long rows too.
    int[][] shapes = {
      {80, 8_464}, {80, 8_449}, {14_352, 48}, {4_096, 35}, {1_104, 6_160}, {1_104, 8_464}
    };
    for (int[] shape : shapes) {
      if (format == WeightFormat.F8_E4M3 && shape[1] % 16 != 0) {
        continue;
      }
      WeightData weight = weight(format, shape[1], shape[0]);
      Weight layer = backend.weight(weight);
      for (int rows : new int[] {1, 5, 8, 9, 16, 17, 32, 33, 63, 64, 65}) {
        float[] x = gaussian(rows * shape[0]);
        Tensor out = backend.tensor(rows, shape[1]);
        backend.linear(tensor(x, shape[0]), rows, layer, null, out);
        check(
            "%s %d x %d x %d".formatted(format, rows, shape[0], shape[1]),
            out.toHost(rows),
            product(x, rows, weight, null));
      }
    }
  }

  @ParameterizedTest
  @EnumSource(names = {"BF16", "F8_E4M3"})
  void shouldMultiplyFewRowsAlikeInAnyCompany(WeightFormat format) {
    int[][] ranges = rowsAlike(format);
    assumeTrue(ranges.length > 0, "this device leaves few rows to a library");
    int inputs = 1_104;
    for (int outputs : new int[] {112, 8_464}) {
      Weight layer = backend.weight(weight(format, outputs, inputs));
      for (int[] range : ranges) {
        int least = range[0];
        int most = range[1];
        float[] x = gaussian(most * inputs);
        Tensor out = backend.tensor(most, outputs);
        backend.linear(tensor(x, inputs), most, layer, null, out);
        float[] all = out.toHost(most);
        // As few as it goes, and for each width that a kernel may have, of both ends.
        for (int rows = least; rows < most; rows += rows < 12 ? 3 : 8) {
          for (int first : new int[] {0, most - rows}) {
            int end = first + rows;
            Tensor part = tensor(Arrays.copyOfRange(x, first * inputs, end * inputs), inputs);
            backend.linear(part, rows, layer, null, out);
            assertThat(out.toHost(rows))
                .as("rows %d to %d of %d, %d outputs", first, end, most, outputs)
                .containsExactly(Arrays.copyOfRange(all, first * outputs, end * outputs));
          }
        }
      }
    }
  }

  /** Numbers of rows, from and to, in which a product computes each row as it does in any other. */
  protected int[][] rowsAlike(WeightFormat format) {
    return new int[][] {{1, 16}};
  }

  @Test
  void shouldNormARowAlikeInAnyCompany() {
    for (int n : new int[] {128, 4096, 9216}) {
      Weight layer = backend.weight(fp8(16, n, new Quantization(0.25f, Quantization.PER_ROW)));
      int rows = 300;
      float[] x = gaussian(rows * n);
      Tensor by = vector(gaussian(n));
      Tensor in = backend.inputOf(backend.tensor(rows, n), layer);
      backend.rmsNorm(tensor(x, n), rows, by, 1e-5f, in);
      float[] all = in.toHost(rows);
      // The order of a sum shows in the last place of a scale, and not of every row's.
      for (int row = 0; row < rows; row += 5) {
        Tensor alone = tensor(Arrays.copyOfRange(x, row * n, (row + 1) * n), n);
        Tensor to = backend.inputOf(backend.tensor(1, n), layer);
        backend.rmsNorm(alone, 1, by, 1e-5f, to);
        assertThat(to.toHost(1)).containsExactly(Arrays.copyOfRange(all, row * n, (row + 1) * n));
      }
    }
  }

  @ParameterizedTest
  @EnumSource(WeightFormat.class)
  void shouldDecodeEveryWeightExactly(WeightFormat format) {
    // One input is 1, the rest 0: the outputs are one column of the matrix.
    int inputs = 96;
    WeightData weight = weight(format, 48, inputs);
    for (int rows : new int[] {1, 4}) {
      for (int column : new int[] {0, 1, 31, 32, 62, 95}) {
        float[] x = new float[rows * inputs];
        x[(rows - 1) * inputs + column] = 1;
        Tensor out = backend.tensor(rows, 48);
        backend.linear(tensor(x, inputs), rows, backend.weight(weight), null, out);
        float[] y = out.toHost(rows);
        float[] all = decoded(weight);
        for (int o = 0; o < 48; o++) {
          assertThat(y[(rows - 1) * 48 + o]).isEqualTo(all[o * inputs + column]);
        }
      }
    }
  }

  @Test
  void shouldMultiplyFp8WithTheScaleOfACheckpoint() {
    for (int rows : new int[] {1, 5, 70, 140}) {
      WeightData matrix = weight(WeightFormat.F8_E4M3, 64, 192);
      // Some inputs are more than the scale reaches: they become the largest number.
      WeightData fixed =
          new WeightData(
              "w", matrix.format(), matrix.shape(), matrix.data(), new Quantization(0.3f, 0.005f));
      float[] x = gaussian(rows * 192);
      Tensor out = backend.tensor(rows, 64);
      backend.linear(tensor(x, 192), rows, backend.weight(fixed), null, out);
      check(rows + " rows", out.toHost(rows), product(x, rows, fixed, null));
    }
  }

  @Test
  void shouldSumManyFp8Products() {
    // Matrix units may keep fewer digits of such sums than a float has.
    for (int inputs : new int[] {4096, 28_672}) {
      WeightData matrix = fp8(32, inputs, new Quantization(0.01f, Quantization.PER_ROW));
      for (int rows : new int[] {1, 8, 140}) {
        float[] x = gaussian(rows * inputs);
        Tensor out = backend.tensor(rows, 32);
        backend.linear(tensor(x, inputs), rows, backend.weight(matrix), null, out);
        check(rows + " x " + inputs, out.toHost(rows), product(x, rows, matrix, null));
      }
    }
  }

  @Test
  void shouldComputeQkvAndGateUpAsTheirParts() {
    int inputs = 64;
    float[] x = gaussian(5 * inputs);
    List<WeightData> weights = List.of(bf16(96, inputs), bf16(32, inputs), bf16(32, inputs));
    List<Tensor> outs =
        List.of(backend.tensor(5, 96), backend.tensor(5, 32), backend.tensor(5, 32));
    backend.qkv(
        tensor(x, inputs),
        5,
        new Projection(backend.weight(weights.get(0)), null, outs.get(0)),
        new Projection(backend.weight(weights.get(1)), null, outs.get(1)),
        new Projection(backend.weight(weights.get(2)), null, outs.get(2)));
    for (int i = 0; i < 3; i++) {
      check("projection " + i, outs.get(i).toHost(5), product(x, 5, weights.get(i), null));
    }

    Projection gate = new Projection(backend.weight(weights.get(1)), null, outs.get(1));
    backend.gateUp(
        tensor(x, inputs),
        5,
        gate,
        new Projection(backend.weight(weights.get(2)), null, outs.get(2)),
        gate.out());
    double[] g = product(x, 5, weights.get(1), null);
    double[] u = product(x, 5, weights.get(2), null);
    double[] expected = IntStream.range(0, g.length).mapToDouble(i -> silu(g[i]) * u[i]).toArray();
    check("gate and up", gate.out().toHost(5), expected);
  }

  @Test
  void shouldRoundWhatFp8LayersReadWhereItIsMade() {
    int n = 128;
    for (float scale : new float[] {Quantization.PER_ROW, 0.01f}) {
      WeightData weight = fp8(32, n, new Quantization(0.25f, scale));
      Weight layer = backend.weight(weight);
      for (int rows : new int[] {1, 3, 40}) {
        float[] x = gaussian(rows * n);
        float[] y = gaussian(rows * n);
        float[] by = gaussian(n);
        Tensor room = backend.tensor(rows, n);
        Tensor out = backend.tensor(rows, 32);

        Tensor in = backend.inputOf(room, layer);
        backend.rmsNorm(tensor(x, n), rows, vector(by), 1e-5f, in);
        backend.linear(in, rows, layer, null, out);
        checkRounded("norm", out.toHost(rows), norm(doubles(x), n, by), rows, weight);

        Tensor state = tensor(x, n);
        Tensor added = backend.inputOf(room, layer);
        backend.addRmsNorm(state, tensor(y, n), rows, vector(by), 1e-5f, added);
        backend.linear(added, rows, layer, null, out);
        double[] sum =
            IntStream.range(0, x.length).mapToDouble(i -> (double) x[i] + y[i]).toArray();
        check("sum", state.toHost(rows), sum);
        double[] stored = doubles(state.toHost(rows));
        checkRounded("norm of sum", out.toHost(rows), norm(stored, n, by), rows, weight);

        Tensor gated = backend.inputOf(room, layer);
        backend.siluMul(tensor(x, n), tensor(y, n), rows, gated);
        backend.linear(gated, rows, layer, null, out);
        double[] product =
            IntStream.range(0, x.length).mapToDouble(i -> silu(x[i]) * y[i]).toArray();
        checkRounded("silu", out.toHost(rows), product, rows, weight);
      }
    }
  }

  /** The layer's result, where the number that it rounds came from a computation of doubles. */
  private void checkRounded(String what, float[] actual, double[] x, int rows, WeightData weight) {
    float[] floats = new float[x.length];
    for (int i = 0; i < x.length; i++) {
      floats[i] = (float) x[i];
    }
    checkWithin(
        what + ", " + rows + " rows", actual, product(floats, rows, weight, null), roundedError());
  }

  /**
   * As {@link #tolerance}, where a difference in the last place may be rounded the other way by
   * e4m3: that of a sixteenth of one number in a thousand.
   */
  protected double roundedError() {
    return 1e-5;
  }

  @Test
  void shouldComputeQkvAndGateUpOfFp8AsTheirParts() {
    int inputs = 64;
    float[] x = gaussian(5 * inputs);
    // Scales may differ within a group, and an input whose scales differ is each layer's own.
    for (float[] scales : new float[][] {{1, 1}, {1, 0.5f}}) {
      List<WeightData> weights =
          List.of(
              fp8(96, inputs, new Quantization(0.5f, 0)),
              fp8(32, inputs, new Quantization(0.5f * scales[1], 0)),
              fp8(32, inputs, new Quantization(0.5f * scales[1], 0)));
      List<Weight> layers = weights.stream().map(backend::weight).toList();
      List<Tensor> outs = backend.sideBySide(5, 96, 32, 32);
      backend.qkv(
          tensor(x, inputs),
          5,
          new Projection(layers.get(0), null, outs.get(0)),
          new Projection(layers.get(1), null, outs.get(1)),
          new Projection(layers.get(2), null, outs.get(2)));
      for (int i = 0; i < 3; i++) {
        check("projection " + i, outs.get(i).toHost(5), product(x, 5, weights.get(i), null));
      }
    }
  }

  // Rows.

  @ParameterizedTest
  @EnumSource(WeightFormat.class)
  void shouldLookUpEmbeddings(WeightFormat format) {
    WeightData table = weight(format, 50, 72);
    TestSequence sequence = TestSequence.shuffled(new int[] {49, 0, 7, 7}, 0, SEED);
    Tensor out = backend.tensor(4, 72);
    backend.embed(begin(List.of(new Part(sequence, 0, 4))), backend.weight(table), out);
    float[] all = decoded(table);
    double[] expected = new double[4 * 72];
    for (int i = 0; i < expected.length; i++) {
      expected[i] = all[new int[] {49, 0, 7, 7}[i / 72] * 72 + i % 72];
    }
    check("embeddings", out.toHost(4), expected);
  }

  @Test
  void shouldNormRows() {
    for (int n : new int[] {1, 8, 16, 31, 192, 1000}) {
      for (int rows : new int[] {1, 3, 40}) {
        float[] x = gaussian(rows * n);
        float[] weight = gaussian(n);
        Tensor out = backend.tensor(rows, n);
        backend.rmsNorm(tensor(x, n), rows, vector(weight), 1e-5f, out);
        check(rows + " x " + n, out.toHost(rows), norm(doubles(x), n, weight));
      }
    }
  }

  @Test
  void shouldAddAndNorm() {
    float[] x = gaussian(6 * 48);
    float[] y = gaussian(6 * 48);
    float[] weight = gaussian(48);
    Tensor state = tensor(x, 48);
    Tensor out = backend.tensor(6, 48);
    backend.addRmsNorm(state, tensor(y, 48), 6, vector(weight), 1e-5f, out);
    double[] sum = IntStream.range(0, x.length).mapToDouble(i -> (double) x[i] + y[i]).toArray();
    check("sum", state.toHost(6), sum);
    check("norm", out.toHost(6), norm(sum, 48, weight));
  }

  @Test
  void shouldGateOverTheWholeRangeOfNumbers() {
    float[] gate = gaussian(3 * 37);
    for (int i = 0; i < gate.length; i++) {
      gate[i] *= i % 3 == 0 ? 100 : 3;
    }
    float[] up = gaussian(gate.length);
    Tensor g = tensor(gate, 37);
    backend.siluMul(g, tensor(up, 37), 3, g);
    check(
        "silu",
        g.toHost(3),
        IntStream.range(0, gate.length).mapToDouble(i -> silu(gate[i]) * up[i]).toArray());
  }

  @Test
  void shouldGatherLogitRows() {
    TestSequence a = TestSequence.shuffled(new int[] {1, 2, 3}, 0, SEED);
    TestSequence b = TestSequence.shuffled(new int[] {4, 5}, 1, SEED);
    Step step =
        backend.begin(TestSequence.lastLogits(List.of(new Part(a, 0, 3), new Part(b, 0, 2))), null);
    float[] x = gaussian(5 * 8);
    Tensor out = backend.tensor(2, 8);
    backend.logitRows(step, tensor(x, 8), out);
    float[] expected = new float[16];
    System.arraycopy(x, 2 * 8, expected, 0, 8);
    System.arraycopy(x, 4 * 8, expected, 8, 8);
    assertThat(out.toHost(2)).containsExactly(expected);
  }

  @Test
  void shouldSampleEachRowAndKeepItsHistory() {
    int vocab = 40;
    float[] logits = gaussian(2 * vocab);
    logits[vocab + 3] = Float.NaN;
    TestSequence a = TestSequence.shuffled(new int[] {1, 2}, 0, SEED);
    TestSequence b = TestSequence.shuffled(new int[] {3}, 1, SEED);
    Batch batch = TestSequence.lastLogits(List.of(new Part(a, 0, 2), new Part(b, 0, 1)));
    // What it draws depends on what it drew.
    SamplingParams penalised =
        new SamplingParams(0, 1, 0, 0, 1.3f, 0, 0, 0, 4, 0, List.of(), false, -1);
    for (int s = 0; s < 2; s++) {
      batch.sampling[s] = new SamplingState(penalised, new int[2 - s], new int[0], new int[0]);
    }
    Tensor onDevice = backend.logits(2, vocab);
    onDevice.fromHost(logits);
    Sampled sampled = backend.sample(backend.begin(batch, null), onDevice);
    int best = 0;
    for (int i = 1; i < vocab; i++) {
      best = logits[i] > logits[best] ? i : best;
    }
    assertThat(sampled.tokens()).containsExactly(best, Sampler.FAILED);
    assertThat(batch.sampling[0].generated()).isEqualTo(1);
    assertThat(batch.sampling[0].token(2)).isEqualTo(best);
    assertThat(batch.sampling[1].generated()).isZero();

    // The next step takes its tokens from there.
    Batch next = TestSequence.lastLogits(List.of(new Part(a, 1, 2)));
    next.tokenFrom[0] = 0;
    WeightData table = bf16(vocab, 8);
    Tensor out = backend.tensor(1, 8);
    backend.embed(backend.begin(next, sampled), backend.weight(table), out);
    assertThat(out.toHost(1))
        .containsExactly(Arrays.copyOfRange(decoded(table), best * 8, best * 8 + 8));
  }

  // Attention.

  @ParameterizedTest
  @CsvSource({"4,4,16", "4,2,32", "6,6,32", "8,1,64", "40,1,16", "64,2,16", "4,2,128", "5,5,48"})
  void shouldAttendInPrefillAndDecode(int heads, int kvHeads, int headDim) {
    AttentionCase c = new AttentionCase(heads, kvHeads, headDim);
    c.fillCacheWithNaN();
    // Lengths around a block, a tile and more; chunks of all kinds side by side.
    c.run(List.of(new int[] {1, 16, 17}, new int[] {130, 1, 1, 40}, new int[] {5, 300}));
  }

  @ParameterizedTest
  @CsvSource({
    "4,4,16",
    "4,2,32",
    "8,1,64",
    "40,1,16",
    "6,2,96",
    "4,2,128",
    "3,3,128",
    "8,1,128",
    "32,2,128",
    "20,1,128",
    "5,5,48"
  })
  void shouldAttendToAnFp8Cache(int heads, int kvHeads, int headDim) {
    AttentionCase c = attentionCase(heads, kvHeads, headDim, true);
    c.fillCacheWithNaN();
    c.run(List.of(new int[] {1, 16, 17}, new int[] {130, 1, 1, 40}, new int[] {5, 300, 1}));
  }

  /** Blocks of a GPU share its multiprocessors then, and are launched otherwise than few are. */
  @ParameterizedTest
  @ValueSource(booleans = {false, true})
  void shouldDecodeManySequencesBeforeItEverDecodedFew(boolean fp8) {
    AttentionCase c = attentionCase(8, 8, 128, fp8);
    c.run(Collections.nCopies(80, new int[] {1}));
  }

  /** So many query rows that a GPU may widen what they read first, beside some that are too few. */
  @ParameterizedTest
  @CsvSource({"8,1,64", "16,2,128"})
  void shouldAttendToAnFp8CacheFromManyRows(int heads, int kvHeads, int headDim) {
    AttentionCase c = attentionCase(heads, kvHeads, headDim, true);
    c.fillCacheWithNaN();
    c.run(
        List.of(
            new int[] {90, 240},
            new int[] {33, 5},
            new int[] {140, 180},
            new int[] {10, 1},
            new int[] {360}));
  }

  /** A GPU cuts such a decode into stretches and puts their results together. */
  @ParameterizedTest
  @CsvSource({
    "4,1,32,false",
    "12,1,32,false",
    "20,1,32,false",
    "4,1,64,true",
    "12,1,32,true",
    "20,1,32,true",
    "4,1,128,true",
    "12,1,128,true"
  })
  void shouldAttendToALongSequenceInADecode(int heads, int kvHeads, int headDim, boolean fp8) {
    AttentionCase c = attentionCase(heads, kvHeads, headDim, fp8);
    c.fillCacheWithNaN();
    c.run(List.of(new int[] {1505, 1, 1}, new int[] {40, 1, 1}));
  }

  @ParameterizedTest
  @CsvSource({"4,1,64,false", "4,1,128,false", "6,2,64,true", "5,1,128,true"})
  void shouldAttendToChunksOfAnySize(int heads, int kvHeads, int headDim, boolean fp8) {
    AttentionCase c = attentionCase(heads, kvHeads, headDim, fp8);
    c.fillCacheWithNaN();
    c.run(IntStream.range(0, 4).mapToObj(s -> random.ints(3, 1, 70).toArray()).toList());
  }

  @ParameterizedTest
  @CsvSource({
    "4,1,64,false",
    "4,2,128,false",
    "6,2,96,false",
    "4,1,64,true",
    "5,1,128,true",
    "8,1,64,true",
    "10,1,128,true"
  })
  void shouldAttendAlikeHoweverAPromptIsCut(int heads, int kvHeads, int headDim, boolean fp8) {
    AttentionCase c = attentionCase(heads, kvHeads, headDim, fp8);
    int n = 371;
    float[][] qkv = c.prompt(n);
    float[] whole = c.outputs(qkv, n);
    assertThat(c.outputs(qkv, 37, 130, 2, n - 169)).as("seed %d", SEED).isEqualTo(whole);
  }

  /** Skips the test where it is to have an FP8 cache and the backend has none. */
  private AttentionCase attentionCase(int heads, int kvHeads, int headDim, boolean fp8) {
    assumeTrue(!fp8 || hasFp8Cache(), "this backend has no such cache");
    return new AttentionCase(heads, kvHeads, headDim, fp8 ? new KvScale(0.02f, 0.007f) : null);
  }

  /**
   * Whether several query tokens of a sequence attend to an FP8 cache in e4m3, as {@link
   * E4m3Attention} has it.
   */
  protected boolean attendsInE4m3(int headDim) {
    return false;
  }

  /** Whether the backend keeps keys and values in FP8 when it is asked to. */
  protected boolean hasFp8Cache() {
    return true;
  }

  /** Some sequences through ropeAndStore and attention, beside their plain counterpart. */
  private final class AttentionCase {
    private static final int BLOCKS = 104;
    private final int heads;
    private final int kvHeads;
    private final int d;
    private final Rotary rotary;
    private final double[] frequencies;
    private final KvCache cache;
    private final @Nullable KvScale fp8;
    private final int layer = 1;

    AttentionCase(int heads, int kvHeads, int headDim) {
      this(heads, kvHeads, headDim, null);
    }

    AttentionCase(int heads, int kvHeads, int headDim, @Nullable KvScale fp8) {
      this.heads = heads;
      this.kvHeads = kvHeads;
      this.d = headDim;
      this.frequencies =
          IntStream.range(0, d / 2).mapToDouble(i -> Math.pow(100, -2.0 * i / d)).toArray();
      this.rotary = new Rotary(frequencies, 1.25);
      this.fp8 = fp8;
      List<Integer> layers = List.of(0, kvHeads, 0);
      this.cache =
          fp8 == null
              ? backend.kvCache(layers, d, BLOCKS)
              : backend.fp8KvCache(layers, d, BLOCKS, List.of(KvScale.NONE, fp8, KvScale.NONE));
    }

    /** What an earlier sequence left behind must not matter. */
    void fillCacheWithNaN() {
      int tokens = BLOCKS * 16;
      float[] nan = new float[tokens * kvHeads * d];
      Arrays.fill(nan, Float.NaN);
      int[] blocks = IntStream.range(0, BLOCKS).toArray();
      TestSequence all = new TestSequence(new int[tokens], blocks);
      backend.ropeAndStore(
          begin(List.of(new Part(all, 0, tokens))),
          rotary,
          backend.tensor(tokens, heads * d),
          tensor(nan, kvHeads * d),
          tensor(nan, kvHeads * d),
          cache,
          layer);
    }

    /** Each array is the chunks of a sequence; step i holds the i-th chunk of each. */
    void run(List<int[]> chunks) {
      List<TestSequence> sequences = new ArrayList<>();
      List<float[][]> qkv = new ArrayList<>();
      int block = 2;
      for (int[] c : chunks) {
        int n = Arrays.stream(c).sum();
        sequences.add(TestSequence.shuffled(new int[n], block, SEED));
        block += Math.ceilDiv(n, 16);
        qkv.add(prompt(n));
      }
      int[] done = new int[chunks.size()];
      for (int i = 0; i < chunks.stream().mapToInt(c -> c.length).max().orElseThrow(); i++) {
        List<Part> parts = new ArrayList<>();
        List<Integer> which = new ArrayList<>();
        for (int s = 0; s < chunks.size(); s++) {
          if (i < chunks.get(s).length) {
            parts.add(new Part(sequences.get(s), done[s], done[s] + chunks.get(s)[i]));
            which.add(s);
          }
        }
        step(parts, which, qkv);
        for (int j = 0; j < parts.size(); j++) {
          done[which.get(j)] = parts.get(j).to();
        }
      }
    }

    /** Queries, keys and values of so many tokens. */
    float[][] prompt(int n) {
      return new float[][] {
        gaussian(n * heads * d), gaussian(n * kvHeads * d), gaussian(n * kvHeads * d)
      };
    }

    /** What a prompt's tokens come to, in chunks. */
    float[] outputs(float[][] qkv, int... chunks) {
      int n = Arrays.stream(chunks).sum();
      TestSequence sequence = TestSequence.shuffled(new int[n], 2, SEED);
      float[] all = new float[n * heads * d];
      int done = 0;
      for (int chunk : chunks) {
        List<Part> parts = List.of(new Part(sequence, done, done + chunk));
        float[] some = attend(parts, List.of(0), List.<float[][]>of(qkv));
        System.arraycopy(some, 0, all, done * heads * d, some.length);
        done += chunk;
      }
      return all;
    }

    private float[] attend(List<Part> parts, List<Integer> which, List<float[][]> qkv) {
      Step step = begin(parts);
      int rows = step.tokens();
      Tensor q = rows(parts, which, qkv, 0, heads * d);
      Tensor out = backend.tensor(rows, heads * d);
      backend.ropeAndStore(
          step,
          rotary,
          q,
          rows(parts, which, qkv, 1, kvHeads * d),
          rows(parts, which, qkv, 2, kvHeads * d),
          cache,
          layer);
      backend.attention(step, q, cache, layer, out);
      return out.toHost(rows);
    }

    private void step(List<Part> parts, List<Integer> which, List<float[][]> qkv) {
      float[] actual = attend(parts, which, qkv);
      int at = 0;
      for (int i = 0; i < parts.size(); i++) {
        float[][] numbers = qkv.get(which.get(i));
        double[][] keys = keys(numbers[1], parts.get(i).to());
        double[][] values = values(numbers[2], parts.get(i).to());
        for (int p = parts.get(i).from(); p < parts.get(i).to(); p++) {
          int width = heads * d;
          String what = "position " + p + " of sequence " + which.get(i);
          float[] row = Arrays.copyOfRange(actual, at, at + width);
          if (inE4m3(parts.get(i))) {
            // Where a score is a little off, a weight may come to lie on the other side between two
            // numbers of e4m3, an eighth apart at the most.
            checkWithin(what, row, rounded(numbers[0], keys, values, p), 0.125 * 0.125);
            checkWithin(what, row, attended(numbers[0], keys, values, p), 0.125 * 0.125);
          } else {
            check(what, row, attended(numbers[0], keys, values, p));
          }
          at += width;
        }
      }
    }

    private boolean inE4m3(Part part) {
      return fp8 != null && part.to() - part.from() > 1 && attendsInE4m3(d);
    }

    private Tensor rows(
        List<Part> parts, List<Integer> which, List<float[][]> qkv, int index, int width) {
      int rows = parts.stream().mapToInt(p -> p.to() - p.from()).sum();
      float[] all = new float[rows * width];
      int at = 0;
      for (int i = 0; i < parts.size(); i++) {
        int n = (parts.get(i).to() - parts.get(i).from()) * width;
        float[] from = qkv.get(which.get(i))[index];
        System.arraycopy(from, parts.get(i).from() * width, all, at, n);
        at += n;
      }
      return tensor(all, width);
    }

    /** [position · kvHeads + head], as the cache keeps them. */
    private double[][] keys(float[] k, int positions) {
      double[][] keys = new double[positions * kvHeads][];
      for (int j = 0; j < keys.length; j++) {
        keys[j] = turned(k, j * d, j / kvHeads);
        Arrays.setAll(keys[j], kept(keys[j], KvScale::keys));
      }
      return keys;
    }

    private double[][] values(float[] v, int positions) {
      double[][] values = new double[positions * kvHeads][d];
      for (int j = 0; j < values.length; j++) {
        int at = j * d;
        Arrays.setAll(values[j], i -> v[at + i]);
        Arrays.setAll(values[j], kept(values[j], KvScale::values));
      }
      return values;
    }

    private double[] attended(float[] queries, double[][] keys, double[][] values, int p) {
      double[] out = new double[heads * d];
      for (int h = 0; h < heads; h++) {
        int kv = h / (heads / kvHeads);
        double[] q = turned(queries, (p * heads + h) * d, p);
        double[] weights = new double[p + 1];
        for (int j = 0; j <= p; j++) {
          double[] k = keys[j * kvHeads + kv];
          double score = 0;
          for (int i = 0; i < d; i++) {
            score += q[i] * k[i];
          }
          weights[j] = Math.exp(score / Math.sqrt(d));
        }
        double sum = Arrays.stream(weights).sum();
        for (int j = 0; j <= p; j++) {
          for (int i = 0; i < d; i++) {
            out[h * d + i] += weights[j] / sum * values[j * kvHeads + kv][i];
          }
        }
      }
      return out;
    }

    private double[] rounded(float[] queries, double[][] keys, double[][] values, int p) {
      double[] out = new double[heads * d];
      for (int h = 0; h < heads; h++) {
        int kv = h / (heads / kvHeads);
        double[] q = turned(queries, (p * heads + h) * d, p);
        Arrays.setAll(q, i -> BackendTest.this.kept((float) q[i]));
        double[] head =
            E4m3Attention.attended(
                q,
                j -> keys[j * kvHeads + kv],
                j -> values[j * kvHeads + kv],
                p + 1,
                1 / Math.sqrt(d));
        System.arraycopy(head, 0, out, h * d, d);
      }
      return out;
    }

    private IntToDoubleFunction kept(double[] numbers, ToDoubleFunction<KvScale> which) {
      if (fp8 == null) {
        return i -> numbers[i];
      }
      double scale = which.applyAsDouble(fp8);
      return i -> E4m3.round((float) (numbers[i] / scale)) * scale;
    }

    private double[] turned(float[] x, int at, int position) {
      double[] out = new double[d];
      for (int i = 0; i < d / 2; i++) {
        double cos = 1.25 * Math.cos(position * frequencies[i]);
        double sin = 1.25 * Math.sin(position * frequencies[i]);
        out[i] = x[at + i] * cos - x[at + d / 2 + i] * sin;
        out[d / 2 + i] = x[at + d / 2 + i] * cos + x[at + i] * sin;
      }
      return out;
    }
  }

  // Helpers.

  private Step begin(List<Part> parts) {
    return backend.begin(TestSequence.batch(parts), null);
  }

  private Tensor tensor(float[] values, int columns) {
    Tensor tensor = backend.tensor(values.length / columns, columns);
    tensor.fromHost(values);
    return tensor;
  }

  private Tensor vector(float[] values) {
    MemorySegment data = arena.allocateFrom(FLOAT, values);
    return backend.vector(new WeightData("v", WeightFormat.F32, new int[] {values.length}, data));
  }

  /** Numbers that bfloat16 holds, so that it does not matter which type a backend computes with. */
  private float[] gaussian(int n) {
    float[] x = new float[n];
    for (int i = 0; i < n; i++) {
      x[i] = Float.intBitsToFloat(Float.floatToIntBits((float) random.nextGaussian()) & 0xFFFF0000);
    }
    return x;
  }

  private float[] decoded(WeightData weight) {
    float[] all = weight.decode();
    for (int i = 0; i < all.length; i++) {
      all[i] = kept(all[i]);
    }
    return all;
  }

  private WeightData fp8(int rows, int columns, Quantization quantization) {
    WeightData any = weight(WeightFormat.F8_E4M3, rows, columns);
    return new WeightData("w", any.format(), any.shape(), any.data(), quantization);
  }

  private WeightData bf16(int rows, int columns) {
    return weight(WeightFormat.BF16, rows, columns);
  }

  /** Random weights at an odd address, as a checkpoint may have them. */
  private WeightData weight(WeightFormat format, int rows, int columns) {
    long count = (long) rows * columns;
    MemorySegment data = arena.allocate(format.bytes(count) + 1).asSlice(1);
    for (long i = 0; i < count; i++) {
      float w = (float) (random.nextGaussian() * Math.pow(2, random.nextInt(5) - 4));
      switch (format) {
        case BF16 -> data.set(SHORT, 2 * i, (short) (Float.floatToIntBits(w) >> 16));
        // Some so small that they are subnormal.
        case F16 -> data.set(SHORT, 2 * i, Float.floatToFloat16(i % 7 == 0 ? w * 1e-5f : w));
        case F32 -> data.set(FLOAT, 4 * i, w);
        // Some subnormal here too.
        case F8_E4M3 ->
            data.set(ValueLayout.JAVA_BYTE, i, E4m3.encode(i % 7 == 0 ? w * 0x1p-6f : w * 0x1p5f));
      }
    }
    Quantization quantization =
        format == WeightFormat.F8_E4M3 ? new Quantization(0x1p-5f, Quantization.PER_ROW) : null;
    return new WeightData("w", format, new int[] {rows, columns}, data, quantization);
  }

  /** What a backend multiplies of x. */
  private float[] taken(float[] x, int rows, WeightData weight) {
    Quantization quantization = weight.quantization();
    if (quantization == null || !roundsInputs(weight)) {
      return x;
    }
    float[] rounded = new float[x.length];
    int n = weight.columns();
    for (int r = 0; r < rows; r++) {
      float largest = 0;
      for (int i = r * n; i < (r + 1) * n; i++) {
        largest = Math.max(largest, Math.abs(x[i]));
      }
      float scale = quantization.fixed() ? quantization.inputScale() : E4m3.scale(largest);
      for (int i = r * n; i < (r + 1) * n; i++) {
        rounded[i] = E4m3.round(x[i] / scale) * scale;
      }
    }
    return rounded;
  }

  private static final ValueLayout.OfShort SHORT =
      ValueLayout.JAVA_SHORT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);
  private static final ValueLayout.OfFloat FLOAT =
      ValueLayout.JAVA_FLOAT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);

  private double[] product(float[] input, int rows, WeightData weight, float @Nullable [] bias) {
    int inputs = weight.columns();
    int outputs = weight.rows();
    float[] w = decoded(weight);
    float[] x = taken(input, rows, weight);
    double[] y = new double[rows * outputs];
    for (int r = 0; r < rows; r++) {
      for (int o = 0; o < outputs; o++) {
        double sum = bias == null ? 0 : bias[o];
        for (int i = 0; i < inputs; i++) {
          sum += (double) x[r * inputs + i] * w[o * inputs + i];
        }
        y[r * outputs + o] = sum;
      }
    }
    return y;
  }

  private static double[] norm(double[] x, int n, float[] weight) {
    double[] y = new double[x.length];
    for (int at = 0; at < x.length; at += n) {
      double squares = 0;
      for (int i = 0; i < n; i++) {
        squares += x[at + i] * x[at + i];
      }
      for (int i = 0; i < n; i++) {
        y[at + i] = x[at + i] / Math.sqrt(squares / n + 1e-5f) * weight[i];
      }
    }
    return y;
  }

  private static double silu(double x) {
    return x / (1 + Math.exp(-x));
  }

  private static double[] doubles(float[] x) {
    return IntStream.range(0, x.length).mapToDouble(i -> x[i]).toArray();
  }

  private void check(String what, float[] actual, double[] expected) {
    // One sum alone may come close to zero, beside which its error is large.
    checkWithin(what, actual, expected, expected.length == 1 ? 10 * tolerance() : tolerance());
  }

  private static void checkWithin(String what, float[] actual, double[] expected, double bound) {
    assertThat(actual.length).as(what).isEqualTo(expected.length);
    double error = 0;
    double norm = 0;
    for (int i = 0; i < expected.length; i++) {
      error += (actual[i] - expected[i]) * (actual[i] - expected[i]);
      norm += expected[i] * expected[i];
    }
    assertThat(error / norm).as("%s, seed %d", what, SEED).isLessThan(bound);
  }
}
