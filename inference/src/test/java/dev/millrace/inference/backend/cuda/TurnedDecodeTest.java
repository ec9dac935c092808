package dev.millrace.inference.backend.cuda;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import dev.millrace.inference.backend.Backend.Projection;
import dev.millrace.inference.backend.KvCache;
import dev.millrace.inference.backend.KvScale;
import dev.millrace.inference.backend.Rotary;
import dev.millrace.inference.backend.Step;
import dev.millrace.inference.backend.Tensor;
import dev.millrace.inference.backend.Weight;
import dev.millrace.inference.checkpoint.Quantization;
import dev.millrace.inference.checkpoint.WeightData;
import dev.millrace.inference.checkpoint.WeightFormat;
import dev.millrace.inference.engine.Batch;
import dev.millrace.inference.model.TestSequence;
import dev.millrace.inference.model.TestSequence.Part;
import dev.millrace.kernels.HopperProducts;
import java.lang.foreign.Arena;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import java.util.stream.IntStream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.EnumSource;

/**
 * Rotary embedding, the way into the cache, a decode and the rounding of its results in one go, and
 * one after another: to the same bits, of rows and of what the cache holds then. Both begin with
 * the same product, whose rows are still to be scaled where it is one of FP8.
 */
@SuppressWarnings("NullAway.Init")
class TurnedDecodeTest {
  private static final long SEED = 20_261_122;
  private static final int BLOCK = CudaKvCache.BLOCK;
  private static final int INPUTS = 64;

  /** More than our own products take, which scale themselves. */
  private static final int ROWS = HopperProducts.MOST_ROWS + 8;

  private static final int LAYER = 1;

  private final Random random = new Random(SEED);
  private final Arena arena = Arena.ofShared();
  private CudaBackend backend;

  /** What reads the results, if anything that has them rounded. */
  enum Reader {
    NONE,
    ROW_SCALES,
    FIXED_SCALE
  }

  /** Sequences with caches of their own, of so many positions, the last of which is new. */
  private final class Case {
    final int heads;
    final int kvHeads;
    final int d;
    final boolean fp8Cache;
    final Rotary rotary;
    final List<TestSequence> sequences = new ArrayList<>();
    final int blocks;
    boolean lastHasNoSlot;

    Case(int heads, int kvHeads, int d, boolean fp8Cache, int... contexts) {
      this.heads = heads;
      this.kvHeads = kvHeads;
      this.d = d;
      this.fp8Cache = fp8Cache;
      this.rotary =
          new Rotary(
              IntStream.range(0, d / 2).mapToDouble(i -> Math.pow(50, -2.0 * i / d)).toArray(),
              1.25);
      int block = 0;
      for (int context : contexts) {
        sequences.add(TestSequence.shuffled(new int[context], block, SEED));
        block += Math.ceilDiv(context, BLOCK);
      }
      blocks = block;
    }

    /** A cache that holds no numbers but those of the positions before the last. */
    KvCache filled(float[][] keysAndValues) {
      List<Integer> layers = List.of(0, kvHeads);
      KvCache cache =
          fp8Cache
              ? backend.fp8KvCache(
                  layers, d, blocks, List.of(KvScale.NONE, new KvScale(0.02f, 0.007f)))
              : backend.kvCache(layers, d, blocks);
      TestSequence all =
          new TestSequence(new int[blocks * BLOCK], IntStream.range(0, blocks).toArray());
      float[] nan = new float[blocks * BLOCK * kvHeads * d];
      Arrays.fill(nan, Float.NaN);
      store(cache, List.of(new Part(all, 0, all.length())), nan, nan);
      List<Part> before =
          sequences.stream()
              .filter(s -> s.length() > 1)
              .map(s -> new Part(s, 0, s.length() - 1))
              .toList();
      store(cache, before, keysAndValues[0], keysAndValues[1]);
      return cache;
    }

    private void store(KvCache cache, List<Part> parts, float[] keys, float[] values) {
      Step step = backend.begin(TestSequence.batch(parts), null);
      int rows = step.tokens();
      backend.ropeAndStore(
          step,
          rotary,
          backend.tensor(rows, heads * d),
          tensor(keys, rows, kvHeads * d),
          tensor(values, rows, kvHeads * d),
          cache,
          LAYER);
    }

    Step last() {
      Batch batch =
          TestSequence.batch(
              sequences.stream().map(s -> new Part(s, s.length() - 1, s.length())).toList());
      if (lastHasNoSlot) {
        batch.slots[batch.tokenCount - 1] = -1;
      }
      return backend.begin(batch, null);
    }

    int before() {
      return sequences.stream().mapToInt(s -> s.length() - 1).sum();
    }
  }

  /** What one way came to. */
  private record Outcome(float[] results, float[] queries, float[] again) {}

  @BeforeEach
  void open() {
    Gpu.require();
    backend = Gpu.open();
  }

  @AfterEach
  void close() {
    if (backend != null) {
      backend.close();
    }
    arena.close();
  }

  private float[] gaussian(int count) {
    float[] values = new float[count];
    for (int i = 0; i < count; i++) {
      values[i] = (float) random.nextGaussian();
    }
    return values;
  }

  private Tensor tensor(float[] values, int rows, int columns) {
    Tensor tensor = backend.tensor(rows, columns);
    tensor.fromHost(values);
    return tensor;
  }

  /** Contexts from one position on, around the ends of blocks and of what warps take at once. */
  private int[] contexts() {
    int[] some = {48, 1, 2, 15, 16, 17, 31, 32, 33, 47, 49, 63, 64, 65, 127, 128, 129, 191, 193};
    return IntStream.range(0, ROWS)
        .map(i -> i < some.length ? some[i] : 1 + random.nextInt(Gpu.emulated() ? 90 : 700))
        .toArray();
  }

  @ParameterizedTest
  @CsvSource({
    "1,1,64,true", // one query head a KV head
    "8,2,32,true",
    "32,8,16,true",
    "16,2,128,true",
    "32,4,48,false",
    "16,1,128,false",
    "80,5,16,true", // sixteen
    "5,5,96,false"
  })
  void shouldComeToTheSameBits(int heads, int kvHeads, int headDim, boolean fp8Cache) {
    for (Reader reader : Reader.values()) {
      assertThat(same(new Case(heads, kvHeads, headDim, fp8Cache, contexts()), reader))
          .as("one kernel, %s", reader)
          .isTrue();
    }
  }

  @ParameterizedTest
  @EnumSource(Reader.class)
  void shouldStoreNothingOfATokenWithoutASlot(Reader reader) {
    Case c = new Case(8, 2, 64, true, contexts());
    c.lastHasNoSlot = true;
    assertThat(same(c, reader)).isTrue();
  }

  @ParameterizedTest
  @EnumSource(Reader.class)
  void shouldGoOneAfterAnotherWhereNoBlockTakesAllHeads(Reader reader) {
    assertThat(same(new Case(40, 2, 16, true, contexts()), reader)).isFalse();
  }

  @ParameterizedTest
  @EnumSource(Reader.class)
  void shouldGoOneAfterAnotherWhereASequenceIsCut(Reader reader) {
    int[] contexts = new int[ROWS];
    Arrays.fill(contexts, 1);
    contexts[7] = Gpu.emulated() ? 6_000 : 60_000;
    assertThat(same(new Case(8, 2, 16, true, contexts), reader)).isFalse();
  }

  /** Counts of a step's rows have to be as they were for the next. */
  @Test
  void shouldComeToTheSameBitsStepAfterStep() {
    for (int i = 0; i < 3; i++) {
      Case c = new Case(8, 4, 32, true, contexts());
      assertThat(same(c, Reader.ROW_SCALES)).as("step %d", i).isTrue();
    }
  }

  /** Whether it was one kernel: that leaves queries as they are. */
  private boolean same(Case c, Reader reader) {
    boolean fp8 = reader != Reader.NONE;
    assumeTrue(!fp8 || Gpu.hasFp8(), "this GPU has no units for FP8");
    WeightFormat format = fp8 ? WeightFormat.F8_E4M3 : WeightFormat.BF16;
    int width = c.heads * c.d;
    Weight[] weights = new Weight[3];
    for (int i = 0; i < 3; i++) {
      int outputs = i == 0 ? width : c.kvHeads * c.d;
      weights[i] = backend.randomWeight(outputs, INPUTS, format, 0.5f, SEED + i);
    }
    Weight next = next(reader, width);
    Tensor x = tensor(gaussian(ROWS * INPUTS), ROWS, INPUTS);
    int before = c.before() * c.kvHeads * c.d;
    float[][] cached = {gaussian(before), gaussian(before)};
    float[] more = gaussian(ROWS * width);
    Outcome[] outcomes = new Outcome[2];
    for (int i = 0; i < 2; i++) {
      KvCache cache = c.filled(cached);
      Step step = c.last();
      List<Tensor> qkv = backend.sideBySide(ROWS, width, c.kvHeads * c.d, c.kvHeads * c.d);
      Tensor q = qkv.get(0);
      Tensor k = qkv.get(1);
      Tensor v = qkv.get(2);
      Projection[] projections = new Projection[3];
      Arrays.setAll(projections, p -> new Projection(weights[p], null, qkv.get(p)));
      backend.qkv(x, ROWS, projections[0], projections[1], projections[2]);
      assertThat(backend.leftUnscaled()).as("rows wait for their scales").isEqualTo(fp8);
      Tensor out = backend.inputOf(backend.tensor(ROWS, width), next);
      if (i == 0) {
        backend.ropeAndStore(step, c.rotary, q, k, v, cache, LAYER);
        backend.attention(step, q, cache, LAYER, out);
      } else {
        backend.ropeAndAttend(step, c.rotary, q, k, v, cache, LAYER, out);
      }
      float[] results = out.toHost(ROWS);
      Tensor again = backend.tensor(ROWS, width);
      backend.attention(step, tensor(more, ROWS, width), cache, LAYER, again);
      outcomes[i] = new Outcome(results, q.toHost(ROWS), again.toHost(ROWS));
    }
    // A token that is none may come to anything.
    int rows = c.lastHasNoSlot ? ROWS - 1 : ROWS;
    for (int row = 0; row < rows; row++) {
      int from = row * width;
      float[] expected = Arrays.copyOfRange(outcomes[0].results, from, from + width);
      assertThat(Arrays.copyOfRange(outcomes[1].results, from, from + width))
          .as("%s, row %d, context %d, seed %d", reader, row, c.sequences.get(row).length(), SEED)
          .isEqualTo(expected);
      for (float number : expected) {
        assertThat(number).as("row %d", row).isFinite();
      }
    }
    // Of one without a slot no numbers: nothing was stored.
    assertThat(outcomes[1].again).as("what was stored, seed %d", SEED).isEqualTo(outcomes[0].again);
    assertThat(Float.isNaN(outcomes[0].again[ROWS * width - 1])).isEqualTo(c.lastHasNoSlot);
    return !Arrays.equals(outcomes[0].queries, outcomes[1].queries);
  }

  private Weight next(Reader reader, int width) {
    return switch (reader) {
      case NONE -> backend.randomWeight(16, width, WeightFormat.BF16, 0.5f, SEED + 3);
      case ROW_SCALES -> backend.randomWeight(16, width, WeightFormat.F8_E4M3, 0.5f, SEED + 3);
      case FIXED_SCALE ->
          backend.weight(
              new WeightData(
                  "next",
                  WeightFormat.F8_E4M3,
                  new int[] {16, width},
                  arena.allocate(16L * width),
                  new Quantization(0.5f, 0.01f)));
    };
  }
}
