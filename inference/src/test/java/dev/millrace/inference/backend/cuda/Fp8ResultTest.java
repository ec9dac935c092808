package dev.millrace.inference.backend.cuda;

import static org.assertj.core.api.Assertions.assertThat;

import dev.millrace.inference.backend.Backend.Projection;
import dev.millrace.inference.backend.KvCache;
import dev.millrace.inference.backend.KvFormat;
import dev.millrace.inference.backend.KvScale;
import dev.millrace.inference.backend.Rotary;
import dev.millrace.inference.backend.Step;
import dev.millrace.inference.backend.Tensor;
import dev.millrace.inference.backend.Weight;
import dev.millrace.inference.checkpoint.WeightFormat;
import dev.millrace.inference.model.TestSequence;
import dev.millrace.inference.model.TestSequence.Part;
import dev.millrace.kernels.HopperProducts;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import java.util.stream.IntStream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/**
 * The rows of FP8 products are multiplied by the scales of their inputs where they are read. Each
 * reader is given one result as the product leaves it and one that is made whole first, by a copy
 * to the host: both must come to the same, and {@code CudaBackendTest} holds whole ones against the
 * reference.
 */
@SuppressWarnings("NullAway.Init")
class Fp8ResultTest {
  /** More than our own products take, which scale themselves. */
  private static final int ROWS = HopperProducts.MOST_ROWS + 8;

  private static final int N = 256;
  private static final int HEAD = 64;
  private static final long SEED = 20_261_122;

  private final Random random = new Random(SEED);
  private CudaBackend backend;
  private Weight layer;

  @BeforeEach
  void open() {
    Gpu.requireFp8();
    backend = Gpu.open();
    layer = weight(N, 1);
  }

  @AfterEach
  void close() {
    if (backend != null) {
      backend.close();
    }
  }

  private Weight weight(int outputs, long seed) {
    return backend.randomWeight(outputs, N, WeightFormat.F8_E4M3, 0.1f, seed);
  }

  /** Rows of quite different sizes, so that each needs a scale of its own. */
  private Tensor input() {
    float[] values = new float[ROWS * N];
    for (int i = 0; i < values.length; i++) {
      values[i] = (float) (random.nextGaussian() * Math.pow(2, i / N % 4 - 3));
    }
    Tensor tensor = backend.tensor(ROWS, N);
    tensor.fromHost(values);
    return tensor;
  }

  private Tensor ones() {
    float[] values = new float[N];
    Arrays.fill(values, 1);
    CudaTensor tensor = (CudaTensor) backend.logits(1, N); // of floats
    tensor.fromHost(values);
    return tensor;
  }

  private static void same(String what, float[] left, float[] whole) {
    double error = 0;
    double norm = 0;
    for (int i = 0; i < whole.length; i++) {
      error += Math.pow(left[i] - whole[i], 2);
      norm += whole[i] * whole[i];
    }
    assertThat(norm).as(what).isPositive();
    // Rounded to bfloat16 before instead of after, some numbers tip over to the next one of e4m3.
    assertThat(error / norm).as("%s, seed %d", what, SEED).isLessThan(1e-3);
  }

  private Tensor product(Tensor x, boolean whole) {
    Tensor out = backend.tensor(ROWS, N);
    backend.linear(x, ROWS, layer, null, out);
    leave(out, whole);
    return out;
  }

  /** Otherwise each product would have the one before made whole. */
  private static void multiplyAsOne(Weight... weights) {
    for (int i = 1; i < weights.length; i++) {
      CudaWeight next = (CudaWeight) weights[i];
      assertThat(((CudaWeight) weights[i - 1]).end()).isEqualTo(next.address());
    }
  }

  /** As the product left it, which has to be without its scales, or whole. */
  private void leave(Tensor result, boolean whole) {
    assertThat(backend.leftUnscaled()).as("rows wait for their scales").isTrue();
    if (whole) {
      result.toHost(ROWS);
      assertThat(backend.leftUnscaled()).as("after a copy").isFalse();
    }
  }

  @Test
  void shouldScaleWhatIsAdded() {
    Tensor x = input();
    float[][] sums = new float[2][];
    for (int i = 0; i < 2; i++) {
      Tensor state = backend.tensor(ROWS, N);
      Tensor delta = product(x, i == 1);
      backend.add(state, delta, ROWS);
      sums[i] = state.toHost(ROWS);
    }
    same("sum", sums[0], sums[1]);
  }

  @Test
  void shouldScaleWhatIsAddedAndNormed() {
    Tensor x = input();
    Tensor ones = ones();
    Weight next = weight(32, 2);
    Tensor room = backend.tensor(ROWS, N);
    Tensor out = backend.tensor(ROWS, 32);
    float[][][] results = new float[2][3][];
    for (int i = 0; i < 2; i++) {
      Tensor state = backend.tensor(ROWS, N);
      backend.addRmsNorm(state, product(x, i == 1), ROWS, ones, 1e-5f, room);
      results[i][0] = room.toHost(ROWS);
      state = backend.tensor(ROWS, N);
      Tensor rounded = backend.inputOf(room, next);
      backend.addRmsNorm(state, product(x, i == 1), ROWS, ones, 1e-5f, rounded);
      backend.linear(rounded, ROWS, next, null, out);
      results[i][1] = state.toHost(ROWS);
      results[i][2] = out.toHost(ROWS);
    }
    for (int j = 0; j < 3; j++) {
      same("result " + j, results[0][j], results[1][j]);
    }
  }

  @Test
  void shouldScaleGateAndUp() {
    Tensor x = input();
    Weight gate = weight(N, 3);
    Weight up = weight(N, 4);
    Weight down = layer;
    multiplyAsOne(gate, up);
    float[][] results = new float[2][];
    for (int i = 0; i < 2; i++) {
      List<Tensor> sides = backend.sideBySide(ROWS, N, N);
      Tensor gated = backend.inputOf(backend.tensor(ROWS, N), down);
      Projection g = new Projection(gate, null, sides.get(0));
      Projection u = new Projection(up, null, sides.get(1));
      if (i == 0) {
        backend.gateUp(x, ROWS, g, u, gated);
      } else {
        backend.qkv(x, ROWS, g, u, new Projection(weight(16, 5), null, backend.tensor(ROWS, 16)));
        backend.siluMul(g.out(), u.out(), ROWS, gated);
      }
      Tensor out = backend.tensor(ROWS, N);
      backend.linear(gated, ROWS, down, null, out);
      results[i] = out.toHost(ROWS);
    }
    same("gate and up", results[0], results[1]);
  }

  @ParameterizedTest
  @EnumSource(KvFormat.class)
  void shouldScaleQueriesKeysAndValues(KvFormat format) {
    Weight[] weights = {weight(2 * HEAD, 6), weight(HEAD, 7), weight(HEAD, 8)};
    multiplyAsOne(weights);
    Tensor x = input();
    double[] frequencies = IntStream.range(0, HEAD / 2).mapToDouble(i -> 1.0 / (i + 1)).toArray();
    Rotary rotary = new Rotary(frequencies, 1);
    float[][] results = new float[2][];
    for (int i = 0; i < 2; i++) {
      KvCache cache =
          format == KvFormat.FP8
              ? backend.fp8KvCache(List.of(1), HEAD, 8, List.of(new KvScale(2, 3)))
              : backend.kvCache(List.of(1), HEAD, 8);
      TestSequence sequence = TestSequence.shuffled(new int[ROWS], 1, SEED);
      Step step = backend.begin(TestSequence.batch(List.of(new Part(sequence, 0, ROWS))), null);
      List<Tensor> qkv = backend.sideBySide(ROWS, 2 * HEAD, HEAD, HEAD);
      Tensor out = backend.tensor(ROWS, 2 * HEAD);
      backend.qkv(
          x,
          ROWS,
          new Projection(weights[0], null, qkv.get(0)),
          new Projection(weights[1], null, qkv.get(1)),
          new Projection(weights[2], null, qkv.get(2)));
      leave(qkv.get(0), i == 1);
      backend.ropeAndStore(step, rotary, qkv.get(0), qkv.get(1), qkv.get(2), cache, 0);
      backend.attention(step, qkv.get(0), cache, 0, out);
      results[i] = out.toHost(ROWS);
    }
    same("attention", results[0], results[1]);
  }

  @Test
  void shouldScaleAResultBeforeTheNextProductTakesItsScales() {
    Tensor x = input();
    Tensor y = input();
    float[] whole = product(x, true).toHost(ROWS);
    Tensor first = product(x, false);
    product(y, false);
    same("the first of two", first.toHost(ROWS), whole);
  }

  @Test
  void shouldNotScaleWhatNobodyReadsAnyMore() {
    Tensor x = input();
    backend.free(product(x, false));
    assertThat(backend.leftUnscaled()).as("after the result was freed").isFalse();
    product(x, false);
    TestSequence sequence = TestSequence.shuffled(new int[1], 1, SEED);
    backend.begin(TestSequence.batch(List.of(new Part(sequence, 0, 1))), null);
    assertThat(backend.leftUnscaled()).as("in the next step").isFalse();
  }
}
