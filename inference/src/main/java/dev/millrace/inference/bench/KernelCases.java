package dev.millrace.inference.bench;

import dev.millrace.inference.api.SamplingParams;
import dev.millrace.inference.backend.Backend;
import dev.millrace.inference.backend.Backend.Projection;
import dev.millrace.inference.backend.KvCache;
import dev.millrace.inference.backend.KvFormat;
import dev.millrace.inference.backend.KvScale;
import dev.millrace.inference.backend.RandomNumbers;
import dev.millrace.inference.backend.Rotary;
import dev.millrace.inference.backend.Step;
import dev.millrace.inference.backend.Tensor;
import dev.millrace.inference.backend.Weight;
import dev.millrace.inference.bench.KernelCase.Prepared;
import dev.millrace.inference.checkpoint.BlockConfig;
import dev.millrace.inference.checkpoint.ModelConfig;
import dev.millrace.inference.checkpoint.WeightData;
import dev.millrace.inference.checkpoint.WeightFormat;
import dev.millrace.inference.engine.Batch;
import dev.millrace.inference.sampling.SamplingState;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Random;
import java.util.function.IntFunction;

/**
 * Every operation of a backend at the shapes of a model: those of its first block with attention,
 * and of its first with a gated feed-forward part.
 */
public final class KernelCases {
  /** Tokens whose keys and values are made at one time. */
  private static final int FILL = 1024;

  private final ModelConfig config;
  private final WeightFormat format;
  private final KvFormat kv;
  private final int kvHeads;
  private final int width;
  private final List<KernelCase> cases = new ArrayList<>();

  private KernelCases(ModelConfig config, WeightFormat format, KvFormat kv) {
    this.config = config;
    this.format = format;
    this.kv = kv;
    this.kvHeads = config.kvHeads().stream().filter(n -> n > 0).findFirst().orElse(0);
    this.width =
        config.blocks().stream()
            .map(BlockConfig::feedForward)
            .filter(BlockConfig.FeedForward.SwiGlu.class::isInstance)
            .mapToInt(f -> ((BlockConfig.FeedForward.SwiGlu) f).width())
            .findFirst()
            .orElse(0);
  }

  /**
   * How large the calls are.
   *
   * @param rows of activations, one case each
   * @param sequences of a decode step
   * @param context that each of them looks at
   * @param prompt tokens of a prefill
   */
  public record Sizes(List<Integer> rows, int sequences, int context, int prompt) {
    public Sizes {
      rows = List.copyOf(rows);
      if (rows.stream().anyMatch(r -> r < 1) || sequences < 1 || context < 1 || prompt < 1) {
        throw new IllegalArgumentException(
            "rows, sequences, context and prompt must be 1 or more: %s, %d, %d, %d"
                .formatted(rows, sequences, context, prompt));
      }
    }
  }

  /**
   * All of them for a model; without attention's where it has none, and so on.
   *
   * @param format of linear layers; of FP8 what they read is rounded where it is made
   */
  public static List<KernelCase> of(
      ModelConfig config, WeightFormat format, KvFormat kv, Sizes sizes) {
    KernelCases all = new KernelCases(config, format, kv);
    for (int rows : sizes.rows()) {
      all.ofRows(rows);
    }
    all.ofSequences(sizes);
    return all.cases;
  }

  private void ofRows(int rows) {
    int hidden = config.hiddenSize();
    int queries = config.heads() * config.headDim();
    String h = rows + " x " + hidden;
    add("embed", h, (b, sets) -> embed(b, sets, rows));
    add("rmsNorm", h, (b, sets) -> norm(b, sets, rows, false));
    add("addRmsNorm", h, (b, sets) -> norm(b, sets, rows, true));
    add("add", h, (b, sets) -> add(b, sets, rows));
    linear("linear o", rows, queries, hidden, format, true);
    if (format == WeightFormat.F8_E4M3) {
      linear("linear o, bf16 in", rows, queries, hidden, format, false);
    }
    linear("linear output", rows, hidden, config.vocabSize(), unquantised(), false);
    if (kvHeads > 0) {
      int kv = kvHeads * config.headDim();
      together("qkv", rows, List.of(queries, kv, kv));
      add("ropeAndStore", rows + " tokens", (b, sets) -> rope(b, sets, rows));
    }
    if (width > 0) {
      linear("linear down", rows, width, hidden, format, true);
      together("gateUp", rows, List.of(width, width));
      add("siluMul", rows + " x " + width, (b, sets) -> silu(b, sets, rows));
    }
  }

  private void ofSequences(Sizes sizes) {
    int sequences = sizes.sequences();
    if (kvHeads > 0) {
      add(
          "attention",
          "decode, %d of %d".formatted(sequences, sizes.context()),
          (b, sets) -> attention(b, sets, batch(b, sequences, sizes.context(), 1)));
      add(
          "attention",
          "prefill, %d".formatted(sizes.prompt()),
          (b, sets) -> attention(b, sets, batch(b, 1, sizes.prompt(), sizes.prompt())));
    }
    String vocab = sequences + " x " + config.vocabSize();
    add("logitRows", sequences + " x " + config.hiddenSize(), (b, s) -> rows(b, s, sequences));
    add("sample", vocab + ", greedy", (b, s) -> sample(b, s, sequences, 0, 1));
    add("sample", vocab + ", top-p 0.9", (b, s) -> sample(b, s, sequences, 0.7f, 0.9f));
  }

  private void add(String operation, String shape, KernelCase.Factory factory) {
    cases.add(new KernelCase(operation, shape, factory));
  }

  private static Roofline.Work bytes(double bytes) {
    return new Roofline.Work(bytes, 0);
  }

  private static <T> List<T> each(int sets, IntFunction<T> make) {
    List<T> all = new ArrayList<>();
    for (int i = 0; i < sets; i++) {
      all.add(make.apply(i));
    }
    return all;
  }

  /** Made-up activations: zeros would be faster than what a model computes. */
  private static Tensor tensor(Backend backend, int rows, int columns, int seed) {
    Tensor tensor = backend.tensor(rows, columns);
    tensor.fromHost(RandomNumbers.vector(Math.multiplyExact(rows, columns), seed));
    return tensor;
  }

  /** Of embedding and output, which FP8 leaves alone. */
  private WeightFormat unquantised() {
    return format == WeightFormat.F8_E4M3 ? WeightFormat.BF16 : format;
  }

  private Weight weight(Backend backend, int rows, int columns, int seed) {
    return weight(backend, rows, columns, format, seed);
  }

  private static Weight weight(
      Backend backend, int rows, int columns, WeightFormat format, int seed) {
    return backend.randomWeight(rows, columns, format, (float) Math.sqrt(3.0 / columns), seed);
  }

  private Prepared embed(Backend b, int sets, int rows) {
    int n = config.hiddenSize();
    List<Weight> tables = each(sets, i -> weight(b, rows, n, unquantised(), i));
    List<Tensor> outs = each(sets, i -> b.tensor(rows, n));
    Batch batch = batch(b, 1, rows, rows);
    List<Integer> order = each(rows, i -> i);
    Collections.shuffle(order, new Random(1));
    for (int t = 0; t < rows; t++) {
      batch.tokens[t] = order.get(t);
    }
    Step step = b.begin(batch, null);
    double bytes = unquantised().bytes((long) rows * n) + activations(outs.getFirst(), rows);
    return new Prepared(bytes(bytes), i -> b.embed(step, tables.get(i), outs.get(i)));
  }

  private Prepared norm(Backend b, int sets, int rows, boolean add) {
    int n = config.hiddenSize();
    MemorySegment numbers =
        Arena.ofAuto().allocateFrom(ValueLayout.JAVA_FLOAT, RandomNumbers.vector(n, 1));
    Tensor weight = b.vector(new WeightData("norm", WeightFormat.F32, new int[] {n}, numbers));
    List<Tensor> xs = each(sets, i -> tensor(b, rows, n, i));
    List<Tensor> ys = each(add ? sets : 0, i -> tensor(b, rows, n, ~i));
    Weight reader = weight(b, 16, n, 1);
    List<Tensor> outs = each(sets, i -> b.inputOf(b.tensor(rows, n), reader));
    double bytes =
        (add ? 3 : 1) * activations(xs.getFirst(), rows) + activations(outs.getFirst(), rows);
    float epsilon = config.rmsNormEps();
    return new Prepared(
        bytes(bytes),
        i -> {
          if (add) {
            b.addRmsNorm(xs.get(i), ys.get(i), rows, weight, epsilon, outs.get(i));
          } else {
            b.rmsNorm(xs.get(i), rows, weight, epsilon, outs.get(i));
          }
        });
  }

  private Prepared add(Backend b, int sets, int rows) {
    int n = config.hiddenSize();
    List<Tensor> xs = each(sets, i -> tensor(b, rows, n, i));
    List<Tensor> ys = each(sets, i -> tensor(b, rows, n, ~i));
    return new Prepared(
        bytes(3 * activations(xs.getFirst(), rows)), i -> b.add(xs.get(i), ys.get(i), rows));
  }

  private Prepared silu(Backend b, int sets, int rows) {
    List<Tensor> gates = each(sets, i -> tensor(b, rows, width, i));
    List<Tensor> ups = each(sets, i -> tensor(b, rows, width, ~i));
    Weight reader = weight(b, 16, width, 1);
    List<Tensor> outs = each(sets, i -> b.inputOf(b.tensor(rows, width), reader));
    return new Prepared(
        bytes(2 * activations(ups.getFirst(), rows) + activations(outs.getFirst(), rows)),
        i -> b.siluMul(gates.get(i), ups.get(i), rows, outs.get(i)));
  }

  /** What layers like this one read, of made-up numbers. */
  private static Tensor input(Backend b, int rows, Weight layer) {
    int n = layer.columns();
    Tensor x = tensor(b, rows, n, 1);
    Tensor input = b.inputOf(x, layer);
    if (input != x) {
      // Rounded by whatever rounds: the numbers do not matter.
      b.siluMul(x, x, rows, input);
    }
    return input;
  }

  /**
   * @param made whether its input is as the operation before it makes it for this layer
   */
  private void linear(
      String name, int rows, int inputs, int outputs, WeightFormat format, boolean made) {
    add(
        name,
        "%d x %d x %d".formatted(rows, inputs, outputs),
        (b, sets) -> {
          List<Weight> weights = each(sets, i -> weight(b, outputs, inputs, format, i));
          Tensor x = made ? input(b, rows, weights.getFirst()) : tensor(b, rows, inputs, 1);
          Tensor out = b.tensor(rows, outputs);
          return new Prepared(
              product(weights.getFirst(), activations(x, rows) + activations(out, rows), rows),
              i -> b.linear(x, rows, weights.get(i), null, out));
        });
  }

  private Roofline.Work product(Weight weight, double activations, int rows) {
    long numbers = (long) weight.rows() * weight.columns();
    return new Roofline.Work(weight.format().bytes(numbers) + activations, 2.0 * numbers * rows);
  }

  /** Projections of one input that a backend can do in one go. */
  private void together(String name, int rows, List<Integer> outputs) {
    int inputs = config.hiddenSize();
    add(
        name,
        "%d x %d x %s".formatted(rows, inputs, outputs),
        (b, sets) -> {
          Tensor x = input(b, rows, weight(b, 16, inputs, 1));
          List<Tensor> outs =
              b.sideBySide(rows, outputs.stream().mapToInt(Integer::intValue).toArray());
          List<List<Projection>> all =
              each(
                  sets,
                  i ->
                      each(
                          outputs.size(),
                          j ->
                              new Projection(
                                  weight(b, outputs.get(j), inputs, 3 * i + j),
                                  null,
                                  outs.get(j))));
          double bytes = activations(x, rows);
          double flops = 0;
          for (Projection p : all.getFirst()) {
            Roofline.Work part = product(p.weight(), activations(p.out(), rows), rows);
            bytes += part.bytes();
            flops += part.flops();
          }
          return new Prepared(
              new Roofline.Work(bytes, flops),
              i -> {
                List<Projection> p = all.get(i);
                if (p.size() == 3) {
                  b.qkv(x, rows, p.get(0), p.get(1), p.get(2));
                } else {
                  b.gateUp(x, rows, p.get(0), p.get(1), p.get(0).out());
                }
              });
        });
  }

  /** A layer of the cache for each set, as in a model. */
  private KvCache cache(Backend b, int sets, Batch batch) {
    List<Integer> layers = Collections.nCopies(sets, kvHeads);
    int blocks = batch.sequences * batch.maxBlocks;
    return kv == KvFormat.FP8
        ? b.fp8KvCache(layers, config.headDim(), blocks, Collections.nCopies(sets, KvScale.NONE))
        : b.kvCache(layers, config.headDim(), blocks);
  }

  private Rotary rotary() {
    double[] frequencies = new double[config.headDim() / 2];
    for (int i = 0; i < frequencies.length; i++) {
      frequencies[i] = Math.pow(config.rope().theta(), -2.0 * i / config.headDim());
    }
    return new Rotary(frequencies, 1);
  }

  private Prepared rope(Backend b, int sets, int rows) {
    int queries = config.heads() * config.headDim();
    int kv = kvHeads * config.headDim();
    Batch batch = batch(b, 1, rows, rows);
    KvCache cache = cache(b, sets, batch);
    Step step = b.begin(batch, null);
    Rotary rotary = rotary();
    List<Tensor> qs = each(sets, i -> tensor(b, rows, queries, i));
    List<Tensor> ks = each(sets, i -> tensor(b, rows, kv, i));
    List<Tensor> vs = each(sets, i -> tensor(b, rows, kv, ~i));
    double bytes =
        2 * activations(qs.getFirst(), rows)
            + 2 * activations(ks.getFirst(), rows)
            + (double) rows * cache.tokenBytes() / sets;
    return new Prepared(
        bytes(bytes), i -> b.ropeAndStore(step, rotary, qs.get(i), ks.get(i), vs.get(i), cache, i));
  }

  private Prepared attention(Backend b, int sets, Batch batch) {
    int queries = config.heads() * config.headDim();
    int kv = kvHeads * config.headDim();
    KvCache cache = cache(b, sets, batch);
    fill(b, cache, kv);
    Step step = b.begin(batch, null);
    int rows = batch.tokenCount;
    Tensor q = tensor(b, rows, queries, 1);
    Tensor out = b.tensor(rows, queries);
    double looks = 0;
    double held = 0;
    for (int s = 0; s < batch.sequences; s++) {
      double end = batch.contextLength[s];
      double count = batch.queryStart[s + 1] - batch.queryStart[s];
      held += end;
      looks += count * (2 * end - count + 1) / 2;
    }
    double bytes = held * cache.tokenBytes() / sets + 2 * activations(q, rows);
    return new Prepared(
        new Roofline.Work(bytes, 4.0 * queries * looks), i -> b.attention(step, q, cache, i, out));
  }

  /** Made-up keys and values in every slot of every layer. */
  private void fill(Backend b, KvCache cache, int kv) {
    int slots = cache.blocks() * cache.blockSize();
    int chunk = Math.min(slots, FILL);
    Tensor q = tensor(b, chunk, config.heads() * config.headDim(), 1);
    Tensor k = tensor(b, chunk, kv, 2);
    Tensor v = tensor(b, chunk, kv, 3);
    Rotary rotary = rotary();
    for (int from = 0; from < slots; from += chunk) {
      int count = Math.min(chunk, slots - from);
      Batch batch = batch(b, 1, count, count);
      for (int t = 0; t < count; t++) {
        batch.slots[t] = from + t;
      }
      Step step = b.begin(batch, null);
      for (int layer = 0; layer < cache.layers(); layer++) {
        b.ropeAndStore(step, rotary, q, k, v, cache, layer);
      }
      b.await();
    }
  }

  private Prepared rows(Backend b, int sets, int sequences) {
    int n = config.hiddenSize();
    Step step = b.begin(batch(b, sequences, 1, 1), null);
    List<Tensor> xs = each(sets, i -> tensor(b, sequences, n, i));
    List<Tensor> outs = each(sets, i -> b.tensor(sequences, n));
    return new Prepared(
        bytes(2 * activations(xs.getFirst(), sequences)),
        i -> b.logitRows(step, xs.get(i), outs.get(i)));
  }

  private Prepared sample(Backend b, int sets, int sequences, float temperature, float topP) {
    Batch batch = batch(b, sequences, 1, 1);
    for (int s = 0; s < sequences; s++) {
      batch.sampling[s] =
          new SamplingState(
              new SamplingParams(
                  temperature, topP, 0, 0, 1, 0, 0, s, Integer.MAX_VALUE, 0, List.of(), true, -1),
              new int[1],
              new int[0],
              new int[0]);
    }
    Step step = b.begin(batch, null);
    int vocab = config.vocabSize();
    List<Tensor> logits = each(sets, i -> b.logits(sequences, vocab));
    for (int i = 0; i < sets; i++) {
      logits.get(i).fromHost(RandomNumbers.vector(Math.multiplyExact(sequences, vocab), i));
    }
    return new Prepared(
        bytes(activations(logits.getFirst(), sequences)),
        i -> {
          var unused = b.sample(step, logits.get(i));
        });
  }

  private static double activations(Tensor tensor, int rows) {
    return (double) rows * tensor.columns() * tensor.elementBytes();
  }

  /** Sequences of one length in blocks of their own, of which the last tokens are computed. */
  private Batch batch(Backend backend, int sequences, int context, int queries) {
    int blockSize = backend.kvCache(List.of(Math.max(1, kvHeads)), config.headDim(), 1).blockSize();
    int blocks = Math.ceilDiv(context, blockSize);
    Batch batch = new Batch(sequences, sequences * queries, blocks);
    batch.sequences = sequences;
    batch.tokenCount = sequences * queries;
    batch.logitCount = sequences;
    for (int s = 0; s < sequences; s++) {
      for (int i = 0; i < blocks; i++) {
        batch.blockTable[s * blocks + i] = s * blocks + i;
      }
      for (int i = 0; i < queries; i++) {
        int t = s * queries + i;
        int position = context - queries + i;
        batch.tokens[t] = t % config.vocabSize();
        batch.tokenFrom[t] = -1;
        batch.positions[t] = position;
        batch.slots[t] = s * blocks * blockSize + position;
      }
      batch.queryStart[s + 1] = (s + 1) * queries;
      batch.contextLength[s] = context;
      batch.logitRows[s] = (s + 1) * queries - 1;
      batch.sampling[s] =
          new SamplingState(SamplingParams.greedy(1), new int[1], new int[0], new int[0]);
    }
    return batch;
  }
}
