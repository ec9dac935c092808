package dev.millrace.inference.backend;

import dev.millrace.inference.checkpoint.WeightData;
import dev.millrace.inference.checkpoint.WeightFormat;
import dev.millrace.inference.engine.Batch;
import java.util.Arrays;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * A device's arithmetic. Operations run in the order of the calls, by one thread; they may return
 * before their result is there. Rows are independent: what a row comes to depends on no other row,
 * so that an answer is the same whatever else is in the batch. The fused forms at the end have the
 * composition as their default; a device overrides those that it does better in one go.
 *
 * <p>Whoever makes a backend closes it, after the last step has ended; that frees all of its
 * handles. Weights may keep pointing into the {@link dev.millrace.inference.checkpoint.Checkpoint},
 * which is closed after the backend.
 */
public interface Backend extends AutoCloseable {

  /** Device and settings, for logs. */
  String describe();

  // Handles.

  /** A matrix of the checkpoint. */
  Weight weight(WeightData matrix);

  /** A vector of the checkpoint, [1, length]: a norm's weight or a bias. */
  Tensor vector(WeightData vector);

  /**
   * A matrix of made-up numbers, spread evenly over [-{@code spread}, {@code spread}]: equal seeds
   * give equal numbers. For measurements of shapes that there is no checkpoint of.
   *
   * @throws IllegalArgumentException if this backend has no weights of that format
   */
  default Weight randomWeight(int rows, int columns, WeightFormat format, float spread, long seed) {
    return weight(RandomNumbers.matrix(rows, columns, format, spread, seed));
  }

  /** Room for activations; zeros. */
  Tensor tensor(int rows, int columns);

  /** Room for logits, which are float32 on every device; zeros. */
  default Tensor logits(int rows, int vocab) {
    return tensor(rows, vocab);
  }

  /**
   * Room for the results of projections over one input, which a device may want to compute in one
   * go; zeros. All are freed together.
   *
   * @param columns of each
   */
  default List<Tensor> sideBySide(int rows, int... columns) {
    return Arrays.stream(columns).mapToObj(n -> tensor(rows, n)).toList();
  }

  /** Lets go of a tensor before the backend closes. */
  void free(Tensor tensor);

  /**
   * Room for keys and values.
   *
   * @param kvHeads of each layer, 0 for none
   */
  KvCache kvCache(List<Integer> kvHeads, int headDim, int blocks);

  /**
   * As {@link #kvCache(List, int, int)}, in FP8.
   *
   * @param scales of each layer
   * @throws UnsupportedOperationException if this backend has no such cache
   */
  default KvCache fp8KvCache(List<Integer> kvHeads, int headDim, int blocks, List<KvScale> scales) {
    throw new UnsupportedOperationException(
        "this backend keeps keys and values as it computes with them, not in FP8");
  }

  /**
   * Where an operation is to put what linear layers read, so that it is there as they multiply it.
   * Good for one result, until the next one is put into another such tensor.
   *
   * @param room where the result would go otherwise
   * @param readers all layers that read it
   * @return an argument for {@code out} of {@link #rmsNorm}, {@link #addRmsNorm}, {@link
   *     #attention} or {@link #gateUp}, and then for {@code x} of {@link #linear}, {@link #qkv} or
   *     {@link #gateUp}; nothing else
   */
  default Tensor inputOf(Tensor room, Weight... readers) {
    return room;
  }

  /**
   * Brings a batch to the device. What {@link #linear}, {@link #qkv} or {@link #gateUp} left in a
   * tensor before may be anything from here on: of the step before, a step reads what was drawn.
   *
   * @param previous what the step before drew, for {@link Batch#tokenFrom}; null if there is none
   */
  Step begin(Batch batch, @Nullable Sampled previous);

  // Operations. Tensors have one row a query token unless said otherwise.

  /** Row of {@code table} for each token: out[t] = table[token[t]]. */
  void embed(Step step, Weight table, Tensor out);

  /** out[t] = x[t] / sqrt(mean(x[t]²) + epsilon) · weight, for the first {@code rows} rows. */
  void rmsNorm(Tensor x, int rows, Tensor weight, float epsilon, Tensor out);

  /** out[t] = weight · x[t] + bias, for the first {@code rows} rows. */
  void linear(Tensor x, int rows, Weight weight, @Nullable Tensor bias, Tensor out);

  /**
   * Turns queries [heads · headDim] and keys [kvHeads · headDim] by their positions, queries in
   * place, and stores turned keys and values in the batch's slots of a layer. Keys and values that
   * {@link #linear} or {@link #qkv} made may be anything afterwards, for a device may leave their
   * rows to be scaled here; so may queries of rows that have no slot.
   */
  void ropeAndStore(
      Step step, Rotary rotary, Tensor q, Tensor k, Tensor v, KvCache cache, int layer);

  /**
   * out[t, h] = softmax(q[t, h] · Kᵀ / sqrt(headDim)) · V over positions 0 to the token's own of
   * its sequence; query head h reads KV head h / (heads / kvHeads).
   */
  void attention(Step step, Tensor q, KvCache cache, int layer, Tensor out);

  /**
   * out[t] = silu(gate[t]) · up[t], element by element; out may be gate or up. Where {@link
   * #linear} or {@link #qkv} made gate and up, those that are not out may be anything afterwards: a
   * device may leave their rows to be scaled here.
   */
  void siluMul(Tensor gate, Tensor up, int rows, Tensor out);

  /** x[t] += y[t]. */
  void add(Tensor x, Tensor y, int rows);

  /** The batch's logit rows of x, one after another. */
  void logitRows(Step step, Tensor x, Tensor out);

  /**
   * Draws a token for each logit row. The row's {@link Batch#sampling} has it once the caller has
   * {@link Sampled#tokens}, where later draws depend on it; elsewhere a device may leave it out.
   */
  Sampled sample(Step step, Tensor logits);

  // Fused forms.

  /**
   * x += y, then out = rmsNorm(x). Where {@link #linear} made y, it may be anything afterwards: a
   * device may leave its rows to be scaled here.
   */
  default void addRmsNorm(Tensor x, Tensor y, int rows, Tensor weight, float epsilon, Tensor out) {
    add(x, y, rows);
    rmsNorm(x, rows, weight, epsilon, out);
  }

  /** The three projections of attention, over one input. */
  default void qkv(Tensor x, int rows, Projection q, Projection k, Projection v) {
    for (Projection p : List.of(q, k, v)) {
      linear(x, rows, p.weight, p.bias, p.out);
    }
  }

  /**
   * Gate and up projections over one input, then {@code out = silu(gate) · up}. {@code gate.out}
   * and {@code up.out} may hold anything afterwards, unless they are {@code out}.
   *
   * @param out may be {@code gate.out}
   */
  default void gateUp(Tensor x, int rows, Projection gate, Projection up, Tensor out) {
    linear(x, rows, gate.weight, gate.bias, gate.out);
    linear(x, rows, up.weight, up.bias, up.out);
    siluMul(gate.out, up.out, rows, out);
  }

  /**
   * Makes ready to run all of a network in one go.
   *
   * @param cache of this network
   * @return null if this backend has no better way than layer by layer
   */
  default @Nullable WholeNetwork whole(UniformNetwork network, KvCache cache) {
    return null;
  }

  // For measurements.

  /** Waits until everything that was started has ended. */
  default void await() {}

  /**
   * What the device can do at most, measured on it. The default asks the operations above; a device
   * that can be asked more directly overrides it.
   */
  default Gauge gauge() {
    return new OperationGauge(this);
  }

  /** A linear layer and where its result goes. */
  record Projection(Weight weight, @Nullable Tensor bias, Tensor out) {}

  @Override
  void close();
}
