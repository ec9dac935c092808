package dev.millrace.inference.model;

import dev.millrace.inference.backend.Backend;
import dev.millrace.inference.backend.Step;
import dev.millrace.inference.backend.Tensor;
import dev.millrace.inference.checkpoint.BlockConfig;
import dev.millrace.inference.checkpoint.BlockConfig.FeedForward;
import dev.millrace.inference.checkpoint.ModelConfig;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * The activations of {@link LlamaModel}, with room for the largest step so far. Layers of one shape
 * share theirs.
 */
final class LlamaWorkspace {
  final Tensor state;
  final Tensor normed;
  final Tensor delta;
  final Tensor q;
  final Tensor attended;
  final Tensor last;
  final Tensor logits;

  /** Whether {@link #delta} has still to be added to {@link #state}. */
  boolean deltaPending;

  private final Backend backend;
  private final List<BlockConfig> blocks;
  private final int headDim;
  private final int rows;
  private final int logitRows;
  private final Map<Integer, Tensor> keys = new HashMap<>();
  private final Map<Integer, Tensor> values = new HashMap<>();
  private final Map<Integer, Tensor> gates = new HashMap<>();
  private final Map<Integer, Tensor> ups = new HashMap<>();

  /**
   * @param smaller the workspace that this one replaces
   */
  LlamaWorkspace(Backend backend, ModelConfig config, Step step, @Nullable LlamaWorkspace smaller) {
    this.backend = backend;
    this.blocks = config.blocks();
    this.headDim = config.headDim();
    this.rows = Math.max(step.tokens(), smaller == null ? 1 : smaller.rows);
    this.logitRows = Math.max(step.logitRows(), smaller == null ? 1 : smaller.logitRows);
    int hidden = config.hiddenSize();
    int queries = config.heads() * config.headDim();
    this.state = backend.tensor(rows, hidden);
    this.normed = backend.tensor(rows, hidden);
    this.delta = backend.tensor(rows, hidden);
    this.q = backend.tensor(rows, queries);
    this.attended = backend.tensor(rows, queries);
    this.last = backend.tensor(logitRows, hidden);
    this.logits = backend.tensor(logitRows, config.vocabSize());
  }

  boolean fits(Step step) {
    return step.tokens() <= rows && step.logitRows() <= logitRows;
  }

  Tensor keys(int layer) {
    return of(keys, blocks.get(layer).kvHeads() * headDim);
  }

  Tensor values(int layer) {
    return of(values, blocks.get(layer).kvHeads() * headDim);
  }

  Tensor gate(int layer) {
    return of(gates, width(layer));
  }

  Tensor up(int layer) {
    return of(ups, width(layer));
  }

  private int width(int layer) {
    return blocks.get(layer).feedForward() instanceof FeedForward.SwiGlu swiGlu
        ? swiGlu.width()
        : 0;
  }

  private Tensor of(Map<Integer, Tensor> tensors, int columns) {
    return tensors.computeIfAbsent(columns, n -> backend.tensor(rows, n));
  }

  void free() {
    List.of(state, normed, delta, q, attended, last, logits).forEach(backend::free);
    List.of(keys, values, gates, ups).forEach(map -> map.values().forEach(backend::free));
  }
}
