package dev.millrace.inference.backend.cpu;

import dev.millrace.inference.api.TokenLogprob;
import dev.millrace.inference.backend.Backend;
import dev.millrace.inference.backend.Gauge;
import dev.millrace.inference.backend.KvCache;
import dev.millrace.inference.backend.Rotary;
import dev.millrace.inference.backend.Sampled;
import dev.millrace.inference.backend.Step;
import dev.millrace.inference.backend.Tensor;
import dev.millrace.inference.backend.Weight;
import dev.millrace.inference.checkpoint.InvalidCheckpointException;
import dev.millrace.inference.checkpoint.Quantization;
import dev.millrace.inference.checkpoint.WeightData;
import dev.millrace.inference.checkpoint.WeightFormat;
import dev.millrace.inference.engine.Batch;
import dev.millrace.inference.sampling.Sampler;
import dev.millrace.inference.sampling.SamplingState;
import java.lang.foreign.Arena;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;
import java.util.Arrays;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * All cores of the machine. Weights stay in the checkpoint's mapped memory and are read from there,
 * those of FP8 in a copy; keys and values lie outside the heap, activations on it. Operations have
 * ended when they return. What FP8 layers multiply is rounded whatever their shape. A GPU with
 * units for FP8 rounds it alike where rows and columns of a matrix are multiples of 16, and sums
 * with fewer digits; other matrices, and all on older GPUs, are bfloat16 there and nothing is
 * rounded.
 */
public final class CpuBackend implements Backend {
  /** Elements below which another thread's help costs more than it brings. */
  private static final int SMALL = 16_384;

  private static final ValueLayout.OfFloat FLOAT =
      ValueLayout.JAVA_FLOAT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);

  private final Workers workers;
  private final Arena arena = Arena.ofShared();
  private final Linear linear;
  private final PagedAttention attention;
  private final float[][] sums;
  private final Fp8Inputs inputs = new Fp8Inputs();
  private final @Nullable Sampler[] samplers;

  /**
   * @param threads that share the work, at least 1
   * @throws UnsupportedOperationException if the processor has no fused multiply-add
   */
  public CpuBackend(int threads) {
    FusedMultiplyAdd.require();
    this.workers = new Workers(threads);
    this.linear = new Linear(workers);
    this.attention = new PagedAttention(workers);
    this.sums = new float[workers.count()][VectorLanes.LANES];
    this.samplers = new Sampler[workers.count()];
  }

  @Override
  public String describe() {
    return "CPU, %d threads, vectors of %d floats".formatted(workers.count(), VectorLanes.WIDTH);
  }

  @Override
  public Weight weight(WeightData matrix) {
    Quantization quantization = matrix.quantization();
    boolean fp8 = quantization != null;
    return new CpuWeight(
        fp8 ? Fp8Inputs.widen(matrix, arena) : matrix.data(),
        fp8 ? WeightFormat.BF16 : matrix.format(),
        matrix.rows(),
        matrix.columns(),
        quantization);
  }

  @Override
  public Tensor vector(WeightData vector) {
    return new CpuTensor(vector.decode(), 1, vector.rows());
  }

  @Override
  public Tensor tensor(int rows, int columns) {
    return new CpuTensor(rows, columns);
  }

  @Override
  public void free(Tensor tensor) {}

  @Override
  public KvCache kvCache(List<Integer> kvHeads, int headDim, int blocks) {
    if (headDim % VectorLanes.LANES != 0) {
      throw new InvalidCheckpointException(
          "the CPU backend needs heads of a multiple of %d numbers, not %d"
              .formatted(VectorLanes.LANES, headDim));
    }
    return new CpuKvCache(arena, kvHeads, headDim, blocks);
  }

  @Override
  public Step begin(Batch batch, @Nullable Sampled previous) {
    int[] tokens = Arrays.copyOf(batch.tokens, batch.tokenCount);
    for (int t = 0; t < tokens.length; t++) {
      int from = batch.tokenFrom[t];
      if (from >= 0) {
        if (previous == null) {
          throw new IllegalStateException("token " + t + " comes from a step that has no result");
        }
        // Where sampling failed there is no token, and nobody will ask for this row's result.
        tokens[t] = Math.max(0, previous.tokens()[from]);
      }
    }
    return new CpuStep(batch, tokens);
  }

  @Override
  public void embed(Step step, Weight table, Tensor out) {
    CpuWeight weight = (CpuWeight) table;
    float scale = weight.quantization() == null ? 1 : weight.quantization().scale();
    int[] tokens = ((CpuStep) step).tokens;
    float[] to = data(out);
    int n = weight.columns();
    each(
        tokens.length,
        n,
        (from, end, worker) -> {
          for (int t = from; t < end; t++) {
            int token = java.util.Objects.checkIndex(tokens[t], weight.rows());
            for (int i = 0; i < n; i++) {
              to[t * n + i] = weight.format().decode(weight.data(), (long) token * n + i) * scale;
            }
          }
        });
  }

  @Override
  public void rmsNorm(Tensor x, int rows, Tensor weight, float epsilon, Tensor out) {
    float[] in = data(x);
    float[] w = data(weight);
    float[] to = data(out);
    int n = x.columns();
    each(
        rows,
        n,
        (from, end, worker) -> {
          for (int r = from; r < end; r++) {
            Rows.rmsNorm(in, r * n, n, w, epsilon, sums[worker], to);
          }
        });
  }

  @Override
  public void linear(Tensor x, int rows, Weight weight, @Nullable Tensor bias, Tensor out) {
    CpuWeight w = (CpuWeight) weight;
    float[] given = data(x);
    float[] in = given;
    Quantization quantization = w.quantization();
    if (quantization != null) {
      int n = w.columns();
      float[] rounded = inputs.of(rows * n);
      each(
          rows,
          n,
          (from, end, worker) -> {
            for (int r = from; r < end; r++) {
              Fp8Inputs.round(given, r * n, n, quantization, rounded);
            }
          });
      in = rounded;
    }
    linear.multiply(in, rows, w, bias == null ? null : data(bias), data(out));
  }

  @Override
  public void ropeAndStore(
      Step step, Rotary rotary, Tensor q, Tensor k, Tensor v, KvCache cache, int layer) {
    CpuStep s = (CpuStep) step;
    s.rotate(rotary, workers);
    CpuKvCache kv = (CpuKvCache) cache;
    int d = kv.headDim();
    each(
        s.tokens(),
        q.columns(),
        (from, end, worker) -> {
          for (int t = from; t < end; t++) {
            turn(data(q), t, q.columns(), d, s);
            turn(data(k), t, k.columns(), d, s);
            store(s.batch.slots[t], t, data(k), data(v), kv, layer);
          }
        });
  }

  private static void turn(float[] x, int t, int columns, int d, CpuStep step) {
    for (int at = t * columns; at < (t + 1) * columns; at += d) {
      Rows.rotate(x, at, d / 2, step.cos(), step.sin(), t * (d / 2));
    }
  }

  private static void store(int slot, int t, float[] k, float[] v, CpuKvCache cache, int layer) {
    int d = cache.headDim();
    int heads = cache.kvHeads(layer);
    int in = slot % CpuKvCache.BLOCK;
    for (int head = 0; head < heads; head++) {
      long at = cache.at(layer, slot / CpuKvCache.BLOCK, head);
      int from = (t * heads + head) * d;
      for (int i = 0; i < d; i++) {
        cache
            .keys(layer)
            .set(FLOAT, at + ((long) i * CpuKvCache.BLOCK + in) * Float.BYTES, k[from + i]);
        cache.values(layer).set(FLOAT, at + ((long) in * d + i) * Float.BYTES, v[from + i]);
      }
    }
  }

  @Override
  public void attention(Step step, Tensor q, KvCache cache, int layer, Tensor out) {
    CpuKvCache kv = (CpuKvCache) cache;
    attention.attend(
        ((CpuStep) step).batch, data(q), q.columns() / kv.headDim(), kv, layer, data(out));
  }

  @Override
  public void siluMul(Tensor gate, Tensor up, int rows, Tensor out) {
    int n = gate.columns();
    each(
        rows,
        n,
        (from, end, worker) ->
            Rows.siluMul(data(gate), data(up), from * n, (end - from) * n, data(out)));
  }

  @Override
  public void add(Tensor x, Tensor y, int rows) {
    int n = x.columns();
    each(rows, n, (from, end, worker) -> Rows.add(data(x), data(y), from * n, (end - from) * n));
  }

  @Override
  public void logitRows(Step step, Tensor x, Tensor out) {
    Batch batch = ((CpuStep) step).batch;
    int n = x.columns();
    for (int i = 0; i < batch.logitCount; i++) {
      System.arraycopy(data(x), batch.logitRows[i] * n, data(out), i * n, n);
    }
  }

  @Override
  public Sampled sample(Step step, Tensor logits) {
    Batch batch = ((CpuStep) step).batch;
    int[] tokens = new int[batch.logitCount];
    @Nullable TokenLogprob[] logprobs = new TokenLogprob[batch.logitCount];
    int n = logits.columns();
    each(
        tokens.length,
        n,
        (from, end, worker) -> {
          Sampler sampler = sampler(worker, n);
          for (int i = from; i < end; i++) {
            SamplingState state = batch.sampling[i];
            tokens[i] = sampler.sample(data(logits), i * n, state);
            logprobs[i] = sampler.logprob();
            if (tokens[i] != Sampler.FAILED) {
              state.append(tokens[i]);
            }
          }
        });
    return new CpuSampled(tokens, logprobs);
  }

  private Sampler sampler(int worker, int vocab) {
    Sampler sampler = samplers[worker];
    if (sampler == null) {
      sampler = new Sampler(vocab);
      samplers[worker] = sampler;
    }
    return sampler;
  }

  private record CpuSampled(int[] tokens, @Nullable TokenLogprob[] logprobs) implements Sampled {}

  private interface RowTask {
    void run(int from, int to, int worker);
  }

  /** Shares rows out, unless they are so few that one thread is faster. */
  private void each(int rows, int columns, RowTask task) {
    if (rows == 1 || (long) rows * columns < SMALL) {
      task.run(0, rows, 0);
    } else {
      workers.run(
          (worker, count) ->
              task.run(
                  Workers.from(rows, 1, worker, count),
                  Workers.from(rows, 1, worker + 1, count),
                  worker));
    }
  }

  private static float[] data(Tensor tensor) {
    return ((CpuTensor) tensor).data();
  }

  @Override
  public Gauge gauge() {
    return new CpuGauge(workers);
  }

  @Override
  public void close() {
    workers.close();
    arena.close();
  }
}
