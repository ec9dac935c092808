package dev.millrace.inference.backend.cuda;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import dev.millrace.inference.backend.Backend;
import dev.millrace.inference.backend.KvCache;
import dev.millrace.inference.backend.KvFormat;
import dev.millrace.inference.backend.KvScale;
import dev.millrace.inference.backend.RandomNumbers;
import dev.millrace.inference.backend.Tensor;
import dev.millrace.inference.backend.UniformNetwork;
import dev.millrace.inference.backend.WholeNetwork;
import dev.millrace.inference.checkpoint.Quantization;
import dev.millrace.inference.checkpoint.WeightData;
import dev.millrace.inference.checkpoint.WeightFormat;
import dev.millrace.inference.engine.Batch;
import dev.millrace.inference.model.Model;
import dev.millrace.inference.model.ModelSource;
import dev.millrace.inference.model.Models;
import dev.millrace.inference.model.TestSequence;
import dev.millrace.inference.model.TestSequence.Part;
import dev.millrace.kernels.Device;
import dev.millrace.kernels.WholeStepKernels;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.lang.reflect.Proxy;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Objects;
import java.util.Random;
import java.util.stream.IntStream;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/**
 * Decode steps as one kernel against the same steps layer by layer, on one GPU: each way has a
 * cache of its own, from which its next steps read what it wrote.
 */
class WholeNetworkTest {
  private static final long SEED = 4;
  private static final int STEPS = 3;

  /** The largest numbers of rows are kept in two places, which layers take in turn. */
  private static final int LAYERS = 3;

  private static final int BLOCK = CudaKvCache.BLOCK;

  /** Of a cache: the emulated one takes the host's memory. */
  private static int blocks() {
    return Gpu.emulated() ? 400 : 1400;
  }

  /** Of the matrices of a layer: where inputs are scaled by what the checkpoint says. */
  private static final float[] SCALES = {1, 0.5f, 2, 1.5f, 0.75f, 1.25f, 0.5f};

  /**
   * Of their inputs, the first three and gate and up of one. Normed rows have numbers of up to 6.
   */
  private static final float[] INPUT_SCALES = {
    1 / 64f, 1 / 64f, 1 / 64f, 1 / 256f, 1 / 80f, 1 / 80f, 1 / 100f
  };

  /**
   * Most differences of a row's logits: the root of their mean square, in that of the logits. Both
   * ways round alike, but what is added in another order may be rounded to the next number, and in
   * FP8 that is a sixteenth apart; where rows have scales of their own, all numbers of a row are if
   * the largest is.
   */
  private record Errors(double row, double mean) {
    static final Errors BF16 = new Errors(3e-2, 1.5e-2);
    static final Errors FP8 = new Errors(7e-2, 3.5e-2);
    static final Errors FP8_BY_ROW = new Errors(0.15, 8e-2);
  }

  /** What is different about a network, so that each is a line of a table. */
  private record Shape(
      WeightFormat weights,
      boolean fixedScales,
      KvFormat kv,
      int headDim,
      int heads,
      int kvHeads,
      int hidden,
      int inner,
      int vocab) {
    Errors errors() {
      return weights != WeightFormat.F8_E4M3
          ? Errors.BF16
          : fixedScales ? Errors.FP8 : Errors.FP8_BY_ROW;
    }

    String config(String more) {
      return """
      {"architectures": ["LlamaForCausalLM"], "vocab_size": %d, "hidden_size": %d,
       "num_attention_heads": %d, "num_key_value_heads": %d, "head_dim": %d,
       "intermediate_size": %d, "num_hidden_layers": %d, "max_position_embeddings": 4096,
       "rms_norm_eps": 1e-5, "rope_theta": 500000, "tie_word_embeddings": false%s}
      """
          .formatted(vocab, hidden, heads, kvHeads, headDim, inner, LAYERS, more);
    }
  }

  /** One way to run a network. */
  private final class Way implements AutoCloseable {
    final Model model;
    final CudaKvCache cache;
    boolean offered;
    int taken;

    Way(CudaBackend backend, Shape shape, String more, boolean whole) throws IOException {
      Path config = Files.writeString(folder.resolve("config.json"), shape.config(more));
      model =
          Models.load(
              new ModelSource.Random(config, shape.weights, SEED), changed(backend, shape, whole));
      cache = (CudaKvCache) model.kvCache(blocks(), shape.kv);
    }

    /**
     * The backend, but that norms have numbers of their own, as keys, values and layers of FP8 have
     * scales; and with or without its way to run all of a network.
     */
    private Backend changed(CudaBackend backend, Shape shape, boolean whole) {
      int[] weights = new int[1];
      return (Backend)
          Proxy.newProxyInstance(
              Backend.class.getClassLoader(),
              new Class<?>[] {Backend.class},
              (proxy, method, arguments) ->
                  switch (method.getName()) {
                    case "whole" ->
                        whole
                            ? counted(
                                backend.whole(
                                    (UniformNetwork) arguments[0],
                                    (CudaKvCache) arguments[1],
                                    WholeStepKernels.MOST_ROWS))
                            : null;
                    case "vector" -> backend.vector(numbers((WeightData) arguments[0]));
                    case "randomWeight" ->
                        scaled(
                            (CudaWeight) call(method, backend, arguments),
                            shape.fixedScales,
                            arguments[2] == WeightFormat.F8_E4M3 ? weights[0]++ : 0);
                    case "fp8KvCache" -> {
                      arguments[3] =
                          IntStream.range(0, LAYERS)
                              .mapToObj(i -> new KvScale(1 / 64f, (i + 1) / 64f))
                              .toList();
                      yield call(method, backend, arguments);
                    }
                    default -> call(method, backend, arguments);
                  });
    }

    private @Nullable WholeNetwork counted(@Nullable WholeNetwork network) {
      offered = network != null;
      return network == null
          ? null
          : (step, state, logits) -> {
            boolean took = network.run(step, state, logits);
            taken += took ? 1 : 0;
            return took;
          };
    }

    float[] logits(CudaBackend backend, List<Part> parts) {
      Batch batch = TestSequence.lastLogits(parts);
      return model.forward(backend.begin(batch, null), cache).toHost(parts.size());
    }

    void prefill(CudaBackend backend, Part part) {
      Batch batch = TestSequence.lastLogits(List.of(part));
      batch.logitCount = 0;
      model.forward(backend.begin(batch, null), cache);
    }

    @Override
    public void close() {
      cache.free();
      model.close();
    }
  }

  @TempDir private Path folder;

  private static Object call(Method method, Object target, Object[] arguments) throws Throwable {
    try {
      return method.invoke(target, arguments);
    } catch (InvocationTargetException e) {
      throw e.getCause();
    }
  }

  private static WeightData numbers(WeightData vector) {
    float[] numbers = RandomNumbers.vector(vector.rows(), vector.name().hashCode());
    MemorySegment data = Arena.ofAuto().allocate(4L * numbers.length, 4);
    for (int i = 0; i < numbers.length; i++) {
      data.setAtIndex(ValueLayout.JAVA_FLOAT, i, 1 + numbers[i] / 2);
    }
    return new WeightData(vector.name(), WeightFormat.F32, new int[] {numbers.length}, data);
  }

  private static CudaWeight scaled(CudaWeight w, boolean fixed, int index) {
    Quantization q = w.quantization();
    if (q == null) {
      return w;
    }
    if (!fixed) {
      return w;
    }
    Quantization own = new Quantization(q.scale() * SCALES[index % 7], INPUT_SCALES[index % 7]);
    return new CudaWeight(w.address(), w.format(), w.rows(), w.columns(), own);
  }

  @BeforeEach
  void require() {
    Gpu.require();
    try (Device device = Device.open(0)) {
      assumeTrue(device.capability() == 90, "this GPU has no kernels for whole steps");
    }
  }

  @ParameterizedTest
  @CsvSource({
    // weights, static scales, cache, head, heads, of KV, hidden, inner, vocabulary
    "BF16, false, NATIVE, 64, 8, 2, 208, 272, 201",
    "BF16, false, FP8, 64, 3, 3, 144, 112, 96",
    "BF16, false, NATIVE, 128, 4, 1, 256, 512, 333",
    "BF16, false, FP8, 128, 4, 2, 176, 304, 50",
    // Fewer units of outputs than there are blocks.
    "BF16, false, NATIVE, 64, 1, 1, 16, 16, 20",
    // What a norm multiplies by lies in the memory of the wide input before it.
    "BF16, false, NATIVE, 64, 1, 1, 512, 3088, 90",
    "F8_E4M3, false, NATIVE, 64, 8, 1, 256, 528, 77",
    "F8_E4M3, true, FP8, 64, 4, 2, 208, 272, 160",
    "F8_E4M3, true, NATIVE, 128, 2, 2, 144, 400, 131",
    "F8_E4M3, false, FP8, 128, 8, 2, 320, 336, 200",
  })
  void shouldComputeWhatLayersCompute(
      WeightFormat weights,
      boolean fixedScales,
      KvFormat kv,
      int headDim,
      int heads,
      int kvHeads,
      int hidden,
      int inner,
      int vocab)
      throws IOException {
    Shape shape =
        new Shape(weights, fixedScales, kv, headDim, heads, kvHeads, hidden, inner, vocab);
    boolean emulated = Gpu.emulated();
    check(shape, new int[] {1, 17, 48, emulated ? 65 : 600}, emulated ? 2 : STEPS);
  }

  @ParameterizedTest
  @CsvSource({"BF16, NATIVE", "F8_E4M3, FP8"})
  void shouldComputeAsManyRowsAsItTakes(WeightFormat weights, KvFormat kv) throws IOException {
    Shape shape = new Shape(weights, false, kv, 64, 4, 2, 304, 208, 90);
    check(shape, new int[] {3, 17, 48, 1, 16, 32, 33, 65}, 1);
  }

  /** Contexts that stay whole, by a token, and that do not; two rows first, then one. */
  @ParameterizedTest
  @CsvSource({
    "BF16, false, NATIVE, 64, 2, 1, 128, 400, 90",
    "F8_E4M3, false, FP8, 128, 4, 2, 144, 448, 96",
    "F8_E4M3, true, NATIVE, 64, 2, 2, 128, 400, 64",
    "F8_E4M3, false, FP8, 64, 4, 1, 64, 128, 48"
  })
  void shouldComputeOneRowAlone(
      WeightFormat weights,
      boolean fixedScales,
      KvFormat kv,
      int headDim,
      int heads,
      int kvHeads,
      int hidden,
      int inner,
      int vocab)
      throws IOException {
    Shape shape =
        new Shape(weights, fixedScales, kv, headDim, heads, kvHeads, hidden, inner, vocab);
    for (int[] lengths : new int[][] {{41, 390}, {384, 383}}) {
      check(shape, lengths, 2);
    }
  }

  @ParameterizedTest
  @CsvSource({"BF16, NATIVE", "F8_E4M3, FP8"})
  void shouldPutPiecesOfALongContextTogether(WeightFormat weights, KvFormat kv) throws IOException {
    // Pieces have 128 tokens or more, and there are as many as a GPU has multiprocessors.
    // Here there are more than those, so that blocks have several.
    if (Gpu.emulated()) {
      check(new Shape(weights, false, kv, 128, 4, 2, 64, 64, 64), new int[] {800, 1, 270}, 1);
    } else {
      int[] lengths = {2600, 2590, 2585, 2600, 2610, 2577, 2599, 2601};
      check(new Shape(weights, false, kv, 128, 16, 8, 64, 64, 64), lengths, 2);
    }
  }

  @ParameterizedTest
  @CsvSource({"BF16", "F8_E4M3"})
  void shouldTakeWideInputsBySegments(WeightFormat weights) throws IOException {
    // So many outputs that each block has several units of a product.
    int hidden = Gpu.emulated() ? 160 : 4256;
    Shape shape = new Shape(weights, false, KvFormat.NATIVE, 64, 1, 1, hidden, 9008, 64);
    check(shape, new int[] {3, 1, 20, 33}, 1);
  }

  /** Whoever multiplies sees no row of what is attended as a whole. */
  @ParameterizedTest
  @CsvSource({"BF16", "F8_E4M3"})
  void shouldTakeWideAttendedRowsBySegments(WeightFormat weights) throws IOException {
    Shape shape = new Shape(weights, false, KvFormat.NATIVE, 128, 40, 5, 64, 64, 64);
    check(shape, new int[] {3, 1, 20, 33, 2, 40, 18, 17}, 1);
  }

  private void check(Shape shape, int[] lengths, int steps) throws IOException {
    if (shape.weights == WeightFormat.F8_E4M3) {
      Gpu.requireFp8();
    }
    try (CudaBackend backend = Gpu.open();
        Way whole = new Way(backend, shape, "", true);
        Way layers = new Way(backend, shape, "", false)) {
      List<TestSequence> sequences = sequences(shape.vocab, lengths, steps);
      for (int s = 0; s < lengths.length; s++) {
        // The last one has the first blocks of the longest.
        int from = s == lengths.length - 1 ? shared(lengths) * BLOCK : 0;
        if (lengths[s] - 1 > from) {
          Part prompt = new Part(sequences.get(s), from, lengths[s] - 1);
          whole.prefill(backend, prompt);
          layers.prefill(backend, prompt);
        }
      }
      int taken = whole.taken;
      int decodes = 0;
      List<Double> errors = new ArrayList<>();
      for (int step = 0; step < steps; step++) {
        // All at first, then some of them in another order.
        for (List<Integer> some : List.of(all(lengths.length), some(lengths.length, step))) {
          List<Part> parts = new ArrayList<>();
          for (int s : some) {
            int at = lengths[s] - 1 + step;
            parts.add(new Part(sequences.get(s), at, at + 1));
          }
          float[] ours = whole.logits(backend, parts);
          float[] theirs = layers.logits(backend, parts);
          String what = "%s, step %d, rows %s".formatted(shape, step, some);
          for (int row = 0; row < parts.size(); row++) {
            double error = error(ours, theirs, row, shape.vocab);
            assertThat(error).as("%s, row %d", what, row).isLessThan(shape.errors().row);
            errors.add(error);
          }
          decodes++;
          if (some.size() == lengths.length) {
            // The same keys and values come where they were: nothing may differ.
            assertThat(whole.logits(backend, parts)).as("%s, again", what).isEqualTo(ours);
            decodes++;
          }
        }
      }
      assertThat(whole.taken - taken).isEqualTo(decodes);
      assertThat(errors.stream().mapToDouble(e -> e).average().orElseThrow())
          .as("%s, in the mean", shape)
          .isLessThan(shape.errors().mean);
    }
  }

  private static int shared(int[] lengths) {
    return Math.min(lengths[lengths.length - 1] - 1, lengths[lengths.length - 2] - 1) / BLOCK;
  }

  private static List<Integer> all(int count) {
    return IntStream.range(0, count).boxed().toList();
  }

  private static List<Integer> some(int count, int step) {
    return IntStream.range(0, count)
        .map(i -> count - 1 - i)
        .filter(i -> i != step % count || count == 1)
        .boxed()
        .toList();
  }

  /** With the first blocks of the last but one and of the last in common. */
  private static List<TestSequence> sequences(int vocab, int[] lengths, int steps) {
    Random random = new Random(SEED);
    List<TestSequence> sequences = new ArrayList<>();
    int next = 1;
    int[] before = {};
    int[] blocksBefore = {};
    for (int s = 0; s < lengths.length; s++) {
      int[] tokens = random.ints(lengths[s] + steps, 0, vocab).toArray();
      int[] blocks = IntStream.range(next, next + Math.ceilDiv(tokens.length, BLOCK)).toArray();
      next += blocks.length;
      if (s == lengths.length - 1) {
        int shared = shared(lengths);
        System.arraycopy(before, 0, tokens, 0, shared * BLOCK);
        System.arraycopy(blocksBefore, 0, blocks, 0, shared);
      }
      before = tokens;
      blocksBefore = blocks;
      sequences.add(new TestSequence(tokens, blocks));
    }
    return sequences;
  }

  private static double error(float[] ours, float[] theirs, int row, int vocab) {
    double apart = 0;
    double size = 0;
    for (int i = row * vocab; i < (row + 1) * vocab; i++) {
      double d = ours[i] - (double) theirs[i];
      apart += d * d;
      size += (double) theirs[i] * theirs[i];
    }
    double error = Math.sqrt(apart / size);
    return Double.isNaN(error) ? Double.POSITIVE_INFINITY : error;
  }

  @ParameterizedTest
  @CsvSource({"BF16, NATIVE", "F8_E4M3, FP8"})
  void shouldLeaveRowsToSpareAlone(WeightFormat weights, KvFormat kv) throws IOException {
    Shape shape = new Shape(weights, false, kv, 64, 4, 2, 128, 192, 120);
    try (CudaBackend backend = Gpu.open();
        Way whole = new Way(backend, shape, "", true)) {
      int[] lengths = {1, 40};
      List<TestSequence> sequences = sequences(shape.vocab, lengths, 1);
      whole.prefill(backend, new Part(sequences.get(1), 0, 39));
      List<Part> parts =
          List.of(new Part(sequences.get(1), 39, 40), new Part(sequences.get(0), 0, 1));
      float[] alone = whole.logits(backend, parts);

      int rows = WholeStepKernels.MOST_ROWS;
      backend.reserve(rows, rows, shape.heads, shape.headDim);
      whole.model.reserve(rows, rows);
      int room = DecodeTables.room(rows, 4096, 100);
      DecodeTables.Sheet sheet = new DecodeTables.Sheet();
      long bytes = new DecodeTables(0, rows, room, List.of(), sheet).bytes();
      DecodeTables tables = new DecodeTables(backend.tables(bytes), rows, room, List.of(), sheet);
      CudaStep recorded = CudaStep.recorded(rows, tables.arrays());
      int taken = whole.taken;
      Tensor logits = whole.model.forward(recorded, whole.cache);
      assertThat(whole.taken).isEqualTo(taken + 1);
      CudaStep.Left left = recorded.left();
      for (int i = 0; i < 2; i++) {
        backend.begin(TestSequence.lastLogits(parts), null, tables, List.of(), left);
        assertThat(Objects.requireNonNull(left.whole()).getAsBoolean()).isTrue();
        assertThat(logits.toHost(parts.size())).isEqualTo(alone);
      }
    }
  }

  @Test
  void shouldTakeDecodeStepsOfFewRowsAlone() throws IOException {
    Shape shape = new Shape(WeightFormat.BF16, false, KvFormat.NATIVE, 64, 2, 1, 64, 64, 64);
    int most = WholeStepKernels.MOST_ROWS;
    try (CudaBackend backend = Gpu.open();
        Way whole = new Way(backend, shape, "", true)) {
      int[] lengths = new int[most + 1];
      Arrays.fill(lengths, 2);
      List<TestSequence> sequences = sequences(shape.vocab, lengths, 1);
      List<Part> parts = sequences.stream().map(s -> new Part(s, 0, 1)).toList();
      whole.logits(backend, parts);
      assertThat(whole.taken).as("too many rows").isZero();
      whole.prefill(backend, parts.getFirst());
      assertThat(whole.taken).as("no logits").isZero();
      whole.logits(backend, List.of(new Part(sequences.getFirst(), 0, 2)));
      assertThat(whole.taken).as("two tokens of a sequence").isZero();
      whole.logits(backend, parts.subList(0, most));
      assertThat(whole.taken).isEqualTo(1);
      // A cache that came later has tables of its own: the model knows the last one.
      KvCache later = whole.model.kvCache(2, shape.kv);
      whole.model.forward(
          backend.begin(TestSequence.lastLogits(parts.subList(0, 1)), null), whole.cache);
      assertThat(whole.taken).as("another cache").isEqualTo(1);
      ((CudaKvCache) later).free();
    }
  }

  @Test
  void shouldBeOfferedForUniformNetworksAlone() throws IOException {
    Shape shape = new Shape(WeightFormat.BF16, false, KvFormat.NATIVE, 64, 2, 1, 64, 64, 64);
    try (CudaBackend backend = Gpu.open();
        Way plain = new Way(backend, shape, "", true);
        Way biased = new Way(backend, shape, ", \"attention_bias\": true", true)) {
      assertThat(plain.offered).isTrue();
      assertThat(biased.offered).as("biases").isFalse();
      for (Shape other :
          List.of(
              new Shape(WeightFormat.BF16, false, KvFormat.NATIVE, 96, 2, 1, 64, 64, 64),
              new Shape(WeightFormat.BF16, false, KvFormat.NATIVE, 64, 16, 1, 64, 64, 64),
              new Shape(WeightFormat.BF16, false, KvFormat.NATIVE, 64, 2, 1, 72, 64, 64),
              new Shape(WeightFormat.BF16, false, KvFormat.NATIVE, 64, 2, 1, 64, 72, 64))) {
        try (Way way = new Way(backend, other, "", true)) {
          assertThat(way.offered).as("%s", other).isFalse();
        }
      }
    }
    try (CudaBackend invariant = new CudaBackend(Gpu.options(true));
        Way way = new Way(invariant, shape, "", true)) {
      assertThat(way.offered).as("invariant results").isFalse();
    }
  }
}
