package dev.millrace.inference.backend.cuda;

import static org.assertj.core.api.Assertions.assertThat;

import dev.millrace.inference.backend.KvFormat;
import dev.millrace.inference.backend.Step;
import dev.millrace.inference.checkpoint.WeightFormat;
import dev.millrace.inference.model.Model;
import dev.millrace.inference.model.Models;
import dev.millrace.inference.model.TestSequence;
import dev.millrace.inference.model.TestSequence.Part;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/**
 * With invariant results a sequence's logits depend on nothing but its tokens, to the bit: not on
 * what else is in a step, nor on how the sequence is cut into steps. Products are chosen by time as
 * a runner chooses them.
 */
class CudaInvariantTest {
  private static final long SEED = 2718;
  private static final String OURS = "invariant ";
  private static final int LENGTH = 300;
  private static final int MOST_TOKENS = 768;
  private static final int MOST_OTHERS = 40;
  private static final int BLOCKS_EACH = LENGTH / CudaKvCache.BLOCK + 1;

  /**
   * How to compute.
   *
   * @param chunks sizes of the steps, in turn
   * @param others most other sequences in a step
   */
  private record Way(int[] chunks, int others, long seed) {}

  @TempDir Path folder;

  @ParameterizedTest
  @CsvSource({
    "BF16, NATIVE, 64",
    "BF16, FP8, 64",
    "F8_E4M3, NATIVE, 64",
    "F8_E4M3, FP8, 64",
    "BF16, NATIVE, 96",
    "F8_E4M3, FP8, 96",
    "BF16, NATIVE, 128",
    "F8_E4M3, FP8, 128"
  })
  void shouldGiveTheSameLogitsInAnyCompanyAndChunking(WeightFormat format, KvFormat kv, int headDim)
      throws IOException {
    Gpu.require();
    Random random = new Random(SEED);
    List<Way> ways = new ArrayList<>();
    ways.add(new Way(new int[] {LENGTH}, 0, 0));
    ways.add(new Way(new int[] {1}, MOST_OTHERS, 1));
    for (int i = 0; i < 6; i++) {
      int[] chunks = random.ints(5, 1, 2 << random.nextInt(7)).toArray();
      ways.add(new Way(chunks, i % 3 * MOST_OTHERS / 2, i));
    }
    try (CudaBackend backend = new CudaBackend(Gpu.options(true));
        Model model = Models.load(Shapes.wide(folder, format, headDim), backend)) {
      time(backend, model, kv, MOST_TOKENS);
      int[] expected = logits(backend, model, kv, new Way(new int[] {1}, 0, 0));
      assertThat(expected).doesNotContain(Float.floatToRawIntBits(Float.NaN));
      for (Way way : ways) {
        int[] actual = logits(backend, model, kv, way);
        int different = 0;
        for (int i = 0; i < actual.length; i++) {
          different += actual[i] == expected[i] ? 0 : 1;
        }
        assertThat(different).as("of %d logits, %s, seed %d", actual.length, way, SEED).isZero();
      }
    }
  }

  /** A way that may split sums must not come back where bits matter, nor the reverse. */
  @Test
  void shouldKeepItsChoicesApartFromThoseOfOthers() throws IOException {
    Gpu.require();
    Path kept = folder.resolve("kept");
    for (boolean invariant : new boolean[] {false, true, false, true}) {
      CudaBackend.Options options = Gpu.options(invariant);
      options = new CudaBackend.Options(0, options.memoryFraction(), null, kept, invariant, false);
      try (CudaBackend backend = new CudaBackend(options);
          Model model = Models.load(Shapes.wide(folder, WeightFormat.BF16, 64), backend)) {
        time(backend, model, KvFormat.NATIVE, 24);
      }
    }
    List<String> products = new ArrayList<>();
    try (Stream<Path> files = Files.list(kept)) {
      for (Path file : files.toList()) {
        Files.readAllLines(file).stream()
            .filter(line -> line.indexOf('\t') > 0)
            .map(line -> line.substring(0, line.indexOf('\t')))
            .forEach(products::add);
      }
    }
    List<String> ours =
        products.stream()
            .filter(p -> p.startsWith(OURS))
            .map(p -> p.substring(OURS.length()))
            .toList();
    List<String> others = products.stream().filter(p -> !p.startsWith(OURS)).toList();
    // Others need not ask the library where they have kernels of their own.
    assertThat(ours).isNotEmpty().containsAll(others);
  }

  /** As a runner does it when it opens, of up to so many rows. */
  private static void time(CudaBackend backend, Model model, KvFormat kv, int most) {
    CudaKvCache cache = (CudaKvCache) model.kvCache(most / CudaKvCache.BLOCK + 2, kv);
    backend.beginTiming(cache.first(), cache.firstBytes());
    for (int rows : CudaRunner.rungs(most)) {
      TestSequence sequence = TestSequence.shuffled(tokens(rows, rows), 1, rows);
      Part all = new Part(sequence, 0, rows);
      model.forward(backend.begin(TestSequence.batch(List.of(all)), null), cache);
      backend.await();
    }
    backend.endTiming();
    cache.free();
  }

  /** [position · vocabulary] bits of every position's logits. */
  private static int[] logits(CudaBackend backend, Model model, KvFormat kv, Way way) {
    int vocab = Shapes.vocabulary();
    Random random = new Random(way.seed);
    CudaKvCache cache = (CudaKvCache) model.kvCache((MOST_OTHERS + 1) * BLOCKS_EACH + 1, kv);
    TestSequence sequence = TestSequence.shuffled(tokens(LENGTH, 1), 1, way.seed);
    List<TestSequence> others = new ArrayList<>();
    for (int i = 0; i < way.others; i++) {
      others.add(TestSequence.shuffled(tokens(LENGTH, 2 + i), 1 + (i + 1) * BLOCKS_EACH, i));
    }
    int[] bits = new int[LENGTH * vocab];
    int from = 0;
    for (int i = 0; from < LENGTH; i++) {
      int to = Math.min(LENGTH, from + way.chunks[i % way.chunks.length]);
      List<Part> parts = new ArrayList<>();
      int first = 0;
      int place = random.nextInt(1 + (way.others == 0 ? 0 : random.nextInt(way.others)));
      int room = MOST_TOKENS - (to - from);
      for (TestSequence other : others) {
        if (parts.size() == place) {
          parts.add(new Part(sequence, from, to));
        }
        int most = random.nextBoolean() ? 1 : 40;
        int count = 1 + random.nextInt(most);
        if (count < room) {
          int begin = random.nextInt(LENGTH - count);
          parts.add(new Part(other, begin, begin + count));
          room -= count;
          first += parts.size() <= place ? count : 0;
        }
      }
      if (parts.size() <= place) {
        parts.add(new Part(sequence, from, to));
      }
      Step step = backend.begin(TestSequence.batch(parts), null);
      float[] logits = model.forward(step, cache).toHost(step.logitRows());
      for (int k = 0; k < (to - from) * vocab; k++) {
        bits[from * vocab + k] = Float.floatToRawIntBits(logits[first * vocab + k]);
      }
      from = to;
    }
    cache.free();
    return bits;
  }

  private static int[] tokens(int count, long seed) {
    return new Random(seed).ints(count, 0, Shapes.vocabulary()).toArray();
  }
}
