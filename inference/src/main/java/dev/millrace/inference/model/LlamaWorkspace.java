package dev.millrace.inference.model;

import dev.millrace.inference.backend.Backend;
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
  final Tensor attended;
  final Tensor last;
  final Tensor logits;

  /** Whether {@link #delta} has still to be added to {@link #state}. */
  boolean deltaPending;

  private final Backend backend;
  private final List<BlockConfig> blocks;
  private final int headDim;
  private final int queries;
  private final int rows;
  private final int logitRows;
  private final Map<Integer, Qkv> qkv = new HashMap<>();
  private final Map<Integer, GateUp> gateUp = new HashMap<>();

  /** Queries, keys and values of an attention. */
  record Qkv(Tensor q, Tensor k, Tensor v) {}

  /** The two inner states of a feed-forward network. */
  record GateUp(Tensor gate, Tensor up) {}

  /**
   * Takes the memory of all blocks.
   *
   * @param smaller the workspace that this one replaces
   */
  LlamaWorkspace(
      Backend backend,
      ModelConfig config,
      int tokens,
      int logitRows,
      @Nullable LlamaWorkspace smaller) {
    this.backend = backend;
    this.blocks = config.blocks();
    this.headDim = config.headDim();
    this.queries = config.heads() * config.headDim();
    this.rows = Math.max(tokens, smaller == null ? 1 : smaller.rows);
    this.logitRows = Math.max(logitRows, smaller == null ? 1 : smaller.logitRows);
    int hidden = config.hiddenSize();
    this.state = backend.tensor(rows, hidden);
    this.normed = backend.tensor(rows, hidden);
    this.delta = backend.tensor(rows, hidden);
    this.attended = backend.tensor(rows, queries);
    this.last = backend.tensor(this.logitRows, hidden);
    this.logits = backend.logits(this.logitRows, config.vocabSize());
    for (int layer = 0; layer < blocks.size(); layer++) {
      if (blocks.get(layer).kvHeads() > 0) {
        qkv(layer);
      }
      if (width(layer) > 0) {
        gateUp(layer);
      }
    }
  }

  boolean fits(int tokens, int logitRows) {
    return tokens <= rows && logitRows <= this.logitRows;
  }

  Qkv qkv(int layer) {
    return qkv.computeIfAbsent(
        blocks.get(layer).kvHeads() * headDim,
        n -> {
          List<Tensor> tensors = backend.sideBySide(rows, queries, n, n);
          return new Qkv(tensors.get(0), tensors.get(1), tensors.get(2));
        });
  }

  GateUp gateUp(int layer) {
    return gateUp.computeIfAbsent(
        width(layer),
        n -> {
          List<Tensor> tensors = backend.sideBySide(rows, n, n);
          return new GateUp(tensors.get(0), tensors.get(1));
        });
  }

  private int width(int layer) {
    return blocks.get(layer).feedForward() instanceof FeedForward.SwiGlu swiGlu
        ? swiGlu.width()
        : 0;
  }

  void free() {
    List.of(state, normed, delta, attended, last, logits).forEach(backend::free);
    qkv.values().forEach(t -> List.of(t.q(), t.k(), t.v()).forEach(backend::free));
    gateUp.values().forEach(t -> List.of(t.gate(), t.up()).forEach(backend::free));
  }
}
