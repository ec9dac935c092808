package dev.millrace.inference.backend.cuda;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import dev.millrace.inference.backend.E4m3Attention;
import dev.millrace.inference.backend.KvCache;
import dev.millrace.inference.backend.KvScale;
import dev.millrace.inference.backend.Rotary;
import dev.millrace.inference.backend.Step;
import dev.millrace.inference.backend.Tensor;
import dev.millrace.inference.checkpoint.E4m3;
import dev.millrace.inference.model.TestSequence;
import dev.millrace.inference.model.TestSequence.Part;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.Random;
import java.util.stream.IntStream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

/**
 * Prefill in e4m3 where it could go wrong and {@code BackendTest} does not look: long contexts,
 * over which the matrix units' few digits would add up, weights that one key has most of or nearly
 * all, scores that rise, lengths at the edges of tiles, and values that are no numbers. On a card
 * that has such kernels.
 */
class E4m3PrefillTest {
  private static final int D = 128;
  private static final int KV_HEADS = 2;
  private static final int HEADS = 4 * KV_HEADS;
  private static final KvScale SCALE = new KvScale(0.02f, 0.01f);

  /** From what rounds alike: a weight rounded the other way now and then, and bfloat16 after it. */
  private static final double ALIKE = 2e-4;

  /**
   * From what rounds nothing but the cache. Numbers of e4m3 are off by 2.6 % as often as not, so
   * weights are (7e-4), and with queries so are scores, by a multiple of that which their size
   * says.
   */
  private static final double PLAIN = 4e-3;

  private final Random random = new Random(20261122);
  private CudaBackend backend;
  private int next = 1; // block

  @BeforeEach
  void open() {
    Gpu.require();
    assumeTrue(Gpu.attendsInE4m3(), "this GPU has no kernels that attend in e4m3");
    backend = Gpu.openForE4m3();
  }

  @AfterEach
  void close() {
    if (backend != null) {
      backend.close();
    }
  }

  /** Values that do not cancel, so that what is lost of a sum is lost of the result. */
  @Test
  void shouldLoseNothingOverALongContext() {
    int n = 16_400;
    Prompt prompt = new Prompt(n);
    for (int i = 0; i < prompt.values.length; i++) {
      prompt.values[i] = 1 + 0.3f * prompt.values[i];
    }
    check(List.of(prompt), new int[] {n - 33}, 1e-4);
  }

  /** An attention sink: what it leaves to the others is all of the result. */
  @Test
  void shouldLoseNothingBesideAPositionWithNearlyAllOfTheWeight() {
    int n = 16_400;
    for (float key : new float[] {2.56f, 2.88f}) { // shares of 0.93 and 0.98
      check(List.of(sink(n, key)), new int[] {n - 33}, 1e-4);
    }
  }

  /**
   * By 2^65 over the context, or by as much the other way. Scores of 45 are less exact, because the
   * matrix units sum with few digits, and more weights are rounded the other way.
   */
  @Test
  void shouldFollowScoresThatRise() {
    int n = 1000;
    for (float key : new float[] {8, -8}) {
      Prompt prompt = new Prompt(n);
      for (int p = 0; p < n; p++) {
        along(prompt, p, 4, p / 300 * key / 3);
      }
      check(List.of(prompt), new int[] {0}, 5 * ALIKE, PLAIN);
    }
  }

  @Test
  void shouldGiveAValueThatIsNoNumberToNobodyWhoDoesNotSeeIt() {
    int n = 300;
    int none = 200;
    Prompt prompt = new Prompt(n);
    prompt.values[none * KV_HEADS * D + 5] = Float.NaN;
    float[] actual = attend(List.of(prompt), new int[] {0});
    assertThat(numbers(actual, 0, none)).as("that do not see it").isEqualTo(none * HEADS * D);
    assertThat(numbers(actual, none, n)).as("that do").isEqualTo((n - none) * HEADS / 2 * D);
  }

  /** Numbers among the results of positions [from, to). */
  private static int numbers(float[] results, int from, int to) {
    int count = 0;
    for (int i = from * HEADS * D; i < to * HEADS * D; i++) {
      count += Float.isNaN(results[i]) ? 0 : 1;
    }
    return count;
  }

  /** Queries that e4m3 holds as they are, and position 0 apart from all others. */
  private Prompt sink(int n, float key) {
    Prompt prompt = new Prompt(n);
    for (int i = 0; i < prompt.queries.length; i++) {
      prompt.queries[i] = E4m3.round(128 * prompt.queries[i]) / 128;
    }
    for (int i = 0; i < prompt.values.length; i++) {
      prompt.values[i] = i < KV_HEADS * D ? 0 : 0.3f + prompt.values[i];
    }
    for (int i = 0; i < KV_HEADS * D; i++) {
      prompt.keys[i] = 0;
    }
    for (int p = 0; p < n; p++) {
      along(prompt, p, 3.5f, p == 0 ? key : 0);
    }
    return prompt;
  }

  /** A position's queries and keys along 16 of their numbers. */
  private static void along(Prompt prompt, int p, float query, float key) {
    for (int i = 0; i < 16; i++) {
      for (int h = 0; h < HEADS; h++) {
        prompt.queries[(p * HEADS + h) * D + i] = query;
      }
      for (int h = 0; h < KV_HEADS; h++) {
        prompt.keys[(p * KV_HEADS + h) * D + i] = key;
      }
    }
  }

  @Test
  void shouldFindTheKeyThatHasMostOfTheWeight() {
    int n = 1000;
    Prompt prompt = new Prompt(n);
    for (int p = 0; p < n; p++) {
      int found = random.nextInt(p + 1);
      for (int h = 0; h < HEADS; h++) {
        int key = (found * KV_HEADS + h / 4) * D;
        for (int i = 0; i < D; i++) {
          prompt.queries[(p * HEADS + h) * D + i] = 2 * prompt.keys[key + i];
        }
      }
    }
    check(List.of(prompt), new int[] {0}, PLAIN);
  }

  @Test
  void shouldAttendAtTheEdgesOfTiles() {
    int[] from = {0, 0, 0, 128, 1, 126, 383, 500};
    int[] to = {127, 128, 129, 256, 3, 128, 385, 513};
    List<Prompt> prompts = new ArrayList<>();
    for (int n : to) {
      prompts.add(new Prompt(n));
    }
    check(prompts, from, PLAIN);
  }

  @Test
  void shouldAttendToSharedBlocks() {
    Prompt first = new Prompt(640);
    Prompt second = new Prompt(700);
    int shared = 512;
    System.arraycopy(first.keys, 0, second.keys, 0, shared * KV_HEADS * D);
    System.arraycopy(first.values, 0, second.values, 0, shared * KV_HEADS * D);
    second.blocks = IntStream.range(2000, 2044).toArray();
    System.arraycopy(first.blocks, 0, second.blocks, 0, shared / 16);
    check(List.of(first, second), new int[] {600, shared}, PLAIN);
  }

  private final class Prompt {
    final int length;
    final float[] queries;
    final float[] keys;
    final float[] values;
    int[] blocks;

    Prompt(int length) {
      this.length = length;
      this.queries = gaussian(length * HEADS * D);
      this.keys = gaussian(length * KV_HEADS * D);
      this.values = gaussian(length * KV_HEADS * D);
      List<Integer> some = new ArrayList<>();
      for (int p = 0; p < length; p += 16) {
        some.add(next++);
      }
      Collections.shuffle(some, random);
      this.blocks = some.stream().mapToInt(Integer::intValue).toArray();
    }
  }

  /**
   * Each prompt up to from[i] first, then the rest of all of them in one step, which is compared.
   */
  private void check(List<Prompt> prompts, int[] from, double plainBound) {
    check(prompts, from, ALIKE, plainBound);
  }

  private void check(List<Prompt> prompts, int[] from, double alikeBound, double plainBound) {
    double[] errors = errors(attend(prompts, from), prompts, from);
    assertThat(errors[1]).as("from what does not round").isLessThan(plainBound);
    assertThat(errors[0]).as("from what rounds alike").isLessThan(alikeBound);
  }

  /** The results of the rest, [token][head][number]. */
  private float[] attend(List<Prompt> prompts, int[] from) {
    KvCache cache = backend.fp8KvCache(List.of(KV_HEADS), D, 2100, List.of(SCALE));
    fill(cache);
    List<Part> before = new ArrayList<>();
    List<Part> parts = new ArrayList<>();
    for (int i = 0; i < from.length; i++) {
      Prompt prompt = prompts.get(i);
      TestSequence sequence = new TestSequence(new int[prompt.length], prompt.blocks);
      if (from[i] > 0) {
        before.add(new Part(sequence, 0, from[i]));
      }
      parts.add(new Part(sequence, from[i], prompt.length));
    }
    List<Prompt> begun =
        IntStream.range(0, from.length).filter(i -> from[i] > 0).mapToObj(prompts::get).toList();
    if (!before.isEmpty()) {
      store(cache, before, begun);
    }
    Step step = store(cache, parts, prompts);
    Tensor q = rows(parts, prompts.stream().map(p -> p.queries).toList(), HEADS * D);
    Tensor out = backend.tensor(step.tokens(), HEADS * D);
    backend.attention(step, q, cache, 0, out);
    return out.toHost(step.tokens());
  }

  /** Normalised mean square errors, from what rounds alike and from what does not round. */
  private static double[] errors(float[] actual, List<Prompt> prompts, int[] from) {
    double[] errors = new double[2];
    double norm = 0;
    int at = 0;
    for (int s = 0; s < from.length; s++) {
      Prompt prompt = prompts.get(s);
      double[][] keys = kept(prompt.keys, SCALE.keys());
      double[][] values = kept(prompt.values, SCALE.values());
      for (int p = from[s]; p < prompt.length; p++) {
        for (int h = 0; h < HEADS; h++, at += D) {
          int kv = h / 4;
          double[] query = new double[D];
          for (int i = 0; i < D; i++) {
            query[i] = prompt.queries[(p * HEADS + h) * D + i];
          }
          double[] alike =
              E4m3Attention.attended(
                  query,
                  j -> keys[j * KV_HEADS + kv],
                  j -> values[j * KV_HEADS + kv],
                  p + 1,
                  1 / Math.sqrt(D));
          double[] plain = plain(query, keys, values, kv, p + 1);
          for (int i = 0; i < D; i++) {
            errors[0] += Math.pow(actual[at + i] - alike[i], 2);
            errors[1] += Math.pow(actual[at + i] - plain[i], 2);
            norm += plain[i] * plain[i];
          }
        }
      }
    }
    return new double[] {errors[0] / norm, errors[1] / norm};
  }

  private static double[] plain(double[] q, double[][] keys, double[][] values, int kv, int n) {
    double[] weights = new double[n];
    double top = Double.NEGATIVE_INFINITY;
    for (int j = 0; j < n; j++) {
      double[] key = keys[j * KV_HEADS + kv];
      for (int i = 0; i < D; i++) {
        weights[j] += q[i] * key[i] / Math.sqrt(D);
      }
      top = Math.max(top, weights[j]);
    }
    double sum = 0;
    double[] out = new double[D];
    for (int j = 0; j < n; j++) {
      double weight = Math.exp(weights[j] - top);
      sum += weight;
      for (int i = 0; i < D; i++) {
        out[i] += weight * values[j * KV_HEADS + kv][i];
      }
    }
    for (int i = 0; i < D; i++) {
      out[i] /= sum;
    }
    return out;
  }

  /** What an earlier sequence left behind must not matter. */
  private void fill(KvCache cache) {
    int tokens = cache.blocks() * 16;
    float[] nan = new float[tokens * KV_HEADS * D];
    Arrays.fill(nan, Float.NaN);
    TestSequence all =
        new TestSequence(new int[tokens], IntStream.range(0, cache.blocks()).toArray());
    Step step = backend.begin(TestSequence.batch(List.of(new Part(all, 0, tokens))), null);
    Tensor k = tensor(nan, KV_HEADS * D);
    Tensor q = backend.tensor(tokens, HEADS * D);
    backend.ropeAndStore(step, STILL, q, k, k, cache, 0);
    backend.free(q);
    backend.free(k);
  }

  /** Turns nothing. */
  private static final Rotary STILL = new Rotary(new double[D / 2], 1);

  private Step store(KvCache cache, List<Part> parts, List<Prompt> prompts) {
    Step step = backend.begin(TestSequence.batch(parts), null);
    Tensor q = backend.tensor(step.tokens(), HEADS * D);
    Tensor k = rows(parts, prompts.stream().map(p -> p.keys).toList(), KV_HEADS * D);
    Tensor v = rows(parts, prompts.stream().map(p -> p.values).toList(), KV_HEADS * D);
    backend.ropeAndStore(step, STILL, q, k, v, cache, 0);
    return step;
  }

  private Tensor rows(List<Part> parts, List<float[]> numbers, int width) {
    int rows = parts.stream().mapToInt(p -> p.to() - p.from()).sum();
    float[] all = new float[rows * width];
    int at = 0;
    for (int i = 0; i < parts.size(); i++) {
      int n = (parts.get(i).to() - parts.get(i).from()) * width;
      System.arraycopy(numbers.get(i), parts.get(i).from() * width, all, at, n);
      at += n;
    }
    return tensor(all, width);
  }

  private Tensor tensor(float[] values, int columns) {
    Tensor tensor = backend.tensor(values.length / columns, columns);
    tensor.fromHost(values);
    return tensor;
  }

  /** [position · KV_HEADS + head], as the cache keeps them. */
  private static double[][] kept(float[] numbers, float scale) {
    double[][] kept = new double[numbers.length / D][D];
    for (int i = 0; i < numbers.length; i++) {
      kept[i / D][i % D] = E4m3.round(bf16(numbers[i]) / scale) * (double) scale;
    }
    return kept;
  }

  private float[] gaussian(int n) {
    float[] x = new float[n];
    for (int i = 0; i < n; i++) {
      x[i] = bf16((float) random.nextGaussian());
    }
    return x;
  }

  private static float bf16(float x) {
    return Float.intBitsToFloat(CudaTensor.bf16(x) << 16);
  }
}
