package dev.millrace.inference.backend.cuda;

import dev.millrace.inference.api.SamplingParams;
import dev.millrace.inference.backend.Gauge;
import dev.millrace.inference.backend.KvCache;
import dev.millrace.inference.backend.KvFormat;
import dev.millrace.inference.backend.KvScale;
import dev.millrace.inference.backend.Rotary;
import dev.millrace.inference.backend.Step;
import dev.millrace.inference.backend.Tensor;
import dev.millrace.inference.backend.Weight;
import dev.millrace.inference.checkpoint.WeightData;
import dev.millrace.inference.checkpoint.WeightFormat;
import dev.millrace.inference.engine.Batch;
import dev.millrace.inference.sampling.SamplingState;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.Random;

/**
 * Times each operation on a GPU at the shapes of an 8B Llama, beside what the GPU does at most.
 * Data is rotated so that it does not come from the cache: weights and layers are more than that
 * holds.
 */
public final class CudaBenchmark {
  private static final int HIDDEN = 4096;
  private static final int WIDTH = 14_336;
  private static final int HEADS = 32;
  private static final int KV_HEADS = 8;
  private static final int HEAD_DIM = 128;
  private static final int VOCAB = 128_256;
  private static final int LAYERS = 4;
  private static final int REPEATS = 7;

  private final CudaBackend backend =
      new CudaBackend(new CudaBackend.Options(0, 0.5, null, null, false, true));
  private final Gauge gauge = backend.gauge();
  private final double bandwidth = gauge.readBytesPerSecond();
  private final double flops = gauge.flopsPerSecond(WeightFormat.BF16);
  private final List<String> lines = new ArrayList<>();

  /** Times all, or with the argument {@code prefill} that alone. */
  public static void main(String[] args) {
    CudaBenchmark benchmark = new CudaBenchmark();
    try {
      if (args.length > 0 && args[0].equals("prefill")) {
        benchmark.prefills();
      } else {
        benchmark.run();
      }
    } finally {
      benchmark.lines.forEach(System.out::println);
      benchmark.backend.close();
    }
  }

  private void run() {
    System.out.printf(
        "%s: copy %.0f GB/s, product %.0f TFLOP/s%n",
        backend.describe(), bandwidth / 1e9, flops / 1e12);
    rows();
    products();
    for (int[] shape : new int[][] {{1, 1024}, {1, 32_768}, {32, 1024}, {256, 1024}, {512, 512}}) {
      decode(shape[0], shape[1]);
    }
    prefills();
    for (int rows : new int[] {1, 64, 256}) {
      sampling(rows, SamplingParams.greedy(4), "greedy");
      sampling(rows, params(0.7f, 1, 0), "temperature");
      sampling(rows, params(0.7f, 0.9f, 50), "top-k, top-p");
    }
  }

  private void rows() {
    for (int rows : new int[] {1, 256, 8192}) {
      Tensor[] x = tensors(rows, HIDDEN);
      Tensor[] y = tensors(rows, HIDDEN);
      Tensor out = backend.tensor(rows, HIDDEN);
      Tensor weight = vector(HIDDEN);
      bytes(
          "add + norm, " + rows + " rows",
          4.0 * rows * HIDDEN * 2,
          i -> backend.addRmsNorm(x[i], y[i], rows, weight, 1e-5f, out));
      free(x);
      free(y);
      backend.free(out);
      List<List<Tensor>> gateUp = new ArrayList<>();
      for (int i = 0; i < LAYERS; i++) {
        gateUp.add(backend.sideBySide(rows, WIDTH, WIDTH));
      }
      bytes(
          "silu * up, " + rows + " rows",
          3.0 * rows * WIDTH * 2,
          i -> {
            Tensor gate = gateUp.get(i).get(0);
            backend.siluMul(gate, gateUp.get(i).get(1), rows, gate);
          });
      gateUp.forEach(l -> l.forEach(backend::free));
    }
  }

  private void products() {
    int[][] shapes = {{6144, HIDDEN}, {HIDDEN, HIDDEN}, {2 * WIDTH, HIDDEN}, {HIDDEN, WIDTH}};
    for (int[] shape : shapes) {
      Weight[] weights = new Weight[LAYERS];
      Arrays.setAll(
          weights, i -> backend.randomWeight(shape[0], shape[1], WeightFormat.BF16, 1, i));
      for (int rows : new int[] {1, 16, 64, 256, 2048}) {
        Tensor x = backend.tensor(rows, shape[1]);
        x.fromHost(random(rows * shape[1]));
        Tensor out = backend.tensor(rows, shape[0]);
        String what = "product %d x %d, %d rows".formatted(shape[0], shape[1], rows);
        Operation operation = i -> backend.linear(x, rows, weights[i], null, out);
        if (rows <= 64) {
          bytes(what, 2.0 * shape[0] * shape[1], operation);
        } else {
          flops(what, 2.0 * rows * shape[0] * shape[1], operation);
        }
        backend.free(x);
        backend.free(out);
      }
    }
  }

  private void decode(int sequences, int context) {
    attention("decode, %d x %d".formatted(sequences, context), batch(sequences, 1, context));
  }

  /** {sequences, query tokens, context}. */
  private void prefills() {
    int[][] shapes = {
      {4, 512, 512},
      {16, 512, 512},
      {1, 2048, 2048},
      {4, 2048, 2048},
      {1, 8192, 8192},
      {1, 8192, 32_768},
      {1, 512, 16_384},
      {1, 256, 16_384},
      {1, 128, 16_384}
    };
    for (KvFormat format : KvFormat.values()) {
      for (int[] shape : shapes) {
        prefill(shape[0], shape[1], shape[2], format);
      }
    }
  }

  /** Over keys and values that are none of those that a product multiplies for nothing. */
  private void prefill(int sequences, int queries, int context, KvFormat format) {
    KvCache cache = cache(sequences * Math.ceilDiv(context, CudaKvCache.BLOCK), format);
    int rows = sequences * queries;
    Tensor q = random(rows, HEADS * HEAD_DIM);
    Tensor k = random(rows, KV_HEADS * HEAD_DIM);
    Tensor v = random(rows, KV_HEADS * HEAD_DIM);
    Tensor out = backend.tensor(rows, HEADS * HEAD_DIM);
    Rotary rotary = rotary();
    for (int end = queries; end <= context; end += queries) {
      Step step = backend.begin(batch(sequences, queries, context, end), null);
      for (int layer = 0; layer < LAYERS; layer++) {
        backend.ropeAndStore(step, rotary, q, k, v, cache, layer);
      }
      backend.await();
    }
    Step step = backend.begin(batch(sequences, queries, context), null);
    double looks = sequences * queries * (context - (queries - 1) / 2.0);
    flops(
        "prefill, %d x %d of %d, %s".formatted(sequences, queries, context, format),
        4.0 * HEADS * HEAD_DIM * looks,
        i -> backend.attention(step, q, cache, i, out));
    free(new Tensor[] {q, k, v, out});
    ((CudaKvCache) cache).free();
  }

  private KvCache cache(int blocks, KvFormat format) {
    List<Integer> layers = Collections.nCopies(LAYERS, KV_HEADS);
    return format == KvFormat.FP8
        ? backend.fp8KvCache(
            layers, HEAD_DIM, blocks, Collections.nCopies(LAYERS, new KvScale(0.02f, 0.007f)))
        : backend.kvCache(layers, HEAD_DIM, blocks);
  }

  private static Rotary rotary() {
    double[] frequencies = new double[HEAD_DIM / 2];
    Arrays.setAll(frequencies, i -> Math.pow(500_000, -2.0 * i / HEAD_DIM));
    return new Rotary(frequencies, 1);
  }

  private Tensor random(int rows, int columns) {
    Tensor tensor = backend.tensor(rows, columns);
    tensor.fromHost(random(rows * columns));
    return tensor;
  }

  private void attention(String what, Batch batch) {
    KvCache cache = cache(batch.sequences * batch.maxBlocks, KvFormat.NATIVE);
    Step step = backend.begin(batch, null);
    int rows = step.tokens();
    List<Tensor> qkv = backend.sideBySide(rows, HEADS * HEAD_DIM, 1024, 1024);
    Tensor out = backend.tensor(rows, HEADS * HEAD_DIM);
    Rotary rotary = rotary();
    bytes(
        "rope + store, " + rows + " rows",
        2.0 * rows * 6144 * 2,
        i -> backend.ropeAndStore(step, rotary, qkv.get(0), qkv.get(1), qkv.get(2), cache, i));
    double length = batch.contextLength[0];
    double work = batch.sequences * length * KV_HEADS * HEAD_DIM * 2 * 2;
    bytes(what, work, i -> backend.attention(step, qkv.get(0), cache, i, out));
    qkv.forEach(backend::free);
    backend.free(out);
    ((CudaKvCache) cache).free();
  }

  private static Batch batch(int sequences, int queries, int context) {
    return batch(sequences, queries, context, context);
  }

  /**
   * @param end of the queries' positions in that context
   */
  private static Batch batch(int sequences, int queries, int context, int end) {
    int blocks = Math.ceilDiv(context, CudaKvCache.BLOCK);
    Batch batch = new Batch(sequences, sequences * queries, blocks);
    List<Integer> shuffled = new ArrayList<>();
    for (int i = 0; i < sequences * blocks; i++) {
      shuffled.add(i);
    }
    Collections.shuffle(shuffled, new Random(1));
    Arrays.setAll(batch.blockTable, shuffled::get);
    Arrays.fill(batch.tokenFrom, -1);
    batch.sequences = sequences;
    batch.tokenCount = sequences * queries;
    for (int t = 0; t < batch.tokenCount; t++) {
      int position = end - queries + t % queries;
      batch.positions[t] = position;
      batch.slots[t] =
          batch.blockTable[t / queries * blocks + position / CudaKvCache.BLOCK] * CudaKvCache.BLOCK
              + position % CudaKvCache.BLOCK;
    }
    for (int s = 0; s < sequences; s++) {
      batch.queryStart[s + 1] = (s + 1) * queries;
      batch.contextLength[s] = end;
    }
    return batch;
  }

  private void sampling(int rows, SamplingParams params, String what) {
    Tensor logits = backend.logits(rows, VOCAB);
    logits.fromHost(random(rows * VOCAB));
    Batch batch = batch(rows, 1, 1);
    batch.logitCount = rows;
    for (int row = 0; row < rows; row++) {
      batch.logitRows[row] = row;
      batch.sampling[row] = new SamplingState(params, new int[] {1}, new int[0], new int[0]);
    }
    Step step = backend.begin(batch, null);
    bytes(
        "sample " + what + ", " + rows + " rows",
        4.0 * rows * VOCAB,
        i -> backend.sample(step, logits));
    backend.free(logits);
  }

  private static SamplingParams params(float temperature, float topP, int topK) {
    return new SamplingParams(temperature, topP, topK, 0, 1, 0, 0, 3, 4, 0, List.of(), false, -1);
  }

  private interface Operation {
    /** On the {@code layer}-th of as many sets of data as there are. */
    void run(int layer);
  }

  private void bytes(String what, double bytes, Operation operation) {
    double seconds = seconds(operation);
    lines.add(
        "%-40s %9.1f us %8.0f GB/s    %5.2f of the copy"
            .formatted(what, seconds * 1e6, bytes / seconds / 1e9, bytes / seconds / bandwidth));
  }

  private void flops(String what, double work, Operation operation) {
    double seconds = seconds(operation);
    lines.add(
        "%-40s %9.1f us %8.0f TFLOP/s %5.2f of the product"
            .formatted(what, seconds * 1e6, work / seconds / 1e12, work / seconds / flops));
  }

  /** Of one call; the median of some rounds over the sets of data, many at once. */
  private double seconds(Operation operation) {
    double[] rounds = new double[REPEATS];
    int calls = 5 * LAYERS;
    for (int round = -2; round < REPEATS; round++) {
      long nanos =
          gauge.nanos(
              () -> {
                for (int i = 0; i < calls; i++) {
                  operation.run(i % LAYERS);
                }
              });
      if (round >= 0) {
        rounds[round] = nanos * 1e-9 / calls;
      }
    }
    Arrays.sort(rounds);
    return rounds[REPEATS / 2];
  }

  private Tensor[] tensors(int rows, int columns) {
    Tensor[] tensors = new Tensor[LAYERS];
    Arrays.setAll(tensors, i -> backend.tensor(rows, columns));
    for (Tensor tensor : tensors) {
      tensor.fromHost(random(rows * columns));
    }
    return tensors;
  }

  private void free(Tensor[] tensors) {
    for (Tensor tensor : tensors) {
      backend.free(tensor);
    }
  }

  private Tensor vector(int length) {
    MemorySegment data = Arena.ofAuto().allocateFrom(ValueLayout.JAVA_FLOAT, random(length));
    return backend.vector(new WeightData("w", WeightFormat.F32, new int[] {length}, data));
  }

  private static float[] random(int count) {
    float[] values = new float[count];
    Random random = new Random(count);
    float[] few = new float[9973];
    for (int i = 0; i < few.length; i++) {
      few[i] = (float) random.nextGaussian();
    }
    for (int i = 0; i < count; i++) {
      values[i] = few[i % few.length];
    }
    return values;
  }
}
