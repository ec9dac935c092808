package dev.millrace.inference.model;

import dev.millrace.inference.backend.Backend.Projection;
import dev.millrace.inference.backend.Tensor;
import dev.millrace.inference.backend.Weight;
import dev.millrace.inference.checkpoint.BlockConfig;
import dev.millrace.inference.checkpoint.ModelConfig;
import java.util.ArrayList;
import java.util.List;
import org.jspecify.annotations.Nullable;

/** The weights of {@link LlamaModel} by their Hugging Face names. */
record LlamaWeights(Weight embedding, List<Block> blocks, Tensor norm, Weight output) {

  /** What a block is made of. */
  record Block(AttentionPart attention, FeedForwardPart feedForward) {}

  sealed interface AttentionPart {}

  sealed interface FeedForwardPart {}

  /** A linear layer. */
  record Layer(Weight weight, @Nullable Tensor bias) {
    Projection into(Tensor out) {
      return new Projection(weight, bias, out);
    }
  }

  record Heads(Tensor norm, Layer q, Layer k, Layer v, Layer o) implements AttentionPart {}

  record SwiGlu(Tensor norm, Layer gate, Layer up, Layer down) implements FeedForwardPart {}

  record Matrix(Tensor norm, Weight weight) implements AttentionPart, FeedForwardPart {}

  record Absent() implements AttentionPart, FeedForwardPart {}

  static LlamaWeights load(ModelConfig config, WeightSource source) {
    return new Loader(config, source).load();
  }

  /** Matrices that every token goes through. */
  List<Weight> body() {
    List<Weight> body = new ArrayList<>();
    for (Block block : blocks) {
      switch (block.attention) {
        case Heads(Tensor unused, Layer q, Layer k, Layer v, Layer o) ->
            body.addAll(List.of(q.weight, k.weight, v.weight, o.weight));
        case Matrix matrix -> body.add(matrix.weight);
        case Absent absent -> {}
      }
      switch (block.feedForward) {
        case SwiGlu(Tensor unused, Layer gate, Layer up, Layer down) ->
            body.addAll(List.of(gate.weight, up.weight, down.weight));
        case Matrix matrix -> body.add(matrix.weight);
        case Absent absent -> {}
      }
    }
    return body;
  }

  private record Loader(ModelConfig config, WeightSource source) {

    LlamaWeights load() {
      int hidden = config.hiddenSize();
      Weight embedding = matrix("model.embed_tokens.weight", config.vocabSize(), hidden);
      List<Block> blocks = new ArrayList<>();
      for (int i = 0; i < config.blocks().size(); i++) {
        BlockConfig block = config.blocks().get(i);
        String prefix = "model.layers." + i + ".";
        blocks.add(
            new Block(
                attention(prefix, block.attention()), feedForward(prefix, block.feedForward())));
      }
      Tensor norm = vector("model.norm.weight", hidden);
      Weight output =
          config.tiedEmbeddings()
              ? embedding
              : matrix("lm_head.weight", config.vocabSize(), hidden);
      return new LlamaWeights(embedding, List.copyOf(blocks), norm, output);
    }

    private AttentionPart attention(String prefix, BlockConfig.Attention attention) {
      int hidden = config.hiddenSize();
      String norm = prefix + "input_layernorm.weight";
      String self = prefix + "self_attn.";
      return switch (attention) {
        case BlockConfig.Attention.Absent absent -> new Absent();
        case BlockConfig.Attention.Linear linear ->
            new Matrix(vector(norm, hidden), matrix(self + "linear_attn.weight", hidden, hidden));
        case BlockConfig.Attention.Heads heads -> {
          int q = config.heads() * config.headDim();
          int kv = heads.kvHeads() * config.headDim();
          yield new Heads(
              vector(norm, hidden),
              layer(self + "q_proj", q, hidden, heads.bias()),
              layer(self + "k_proj", kv, hidden, heads.bias()),
              layer(self + "v_proj", kv, hidden, heads.bias()),
              layer(self + "o_proj", hidden, q, heads.bias()));
        }
      };
    }

    private FeedForwardPart feedForward(String prefix, BlockConfig.FeedForward feedForward) {
      int hidden = config.hiddenSize();
      String norm = prefix + "post_attention_layernorm.weight";
      String mlp = prefix + "mlp.";
      return switch (feedForward) {
        case BlockConfig.FeedForward.Absent absent -> new Absent();
        case BlockConfig.FeedForward.Linear linear ->
            new Matrix(vector(norm, hidden), matrix(mlp + "linear_mlp.weight", hidden, hidden));
        case BlockConfig.FeedForward.SwiGlu swiGlu ->
            new SwiGlu(
                vector(norm, hidden),
                layer(mlp + "gate_proj", swiGlu.width(), hidden, swiGlu.bias()),
                layer(mlp + "up_proj", swiGlu.width(), hidden, swiGlu.bias()),
                layer(mlp + "down_proj", hidden, swiGlu.width(), swiGlu.bias()));
      };
    }

    private Layer layer(String name, int outputs, int inputs, boolean bias) {
      return new Layer(
          matrix(name + ".weight", outputs, inputs), bias ? vector(name + ".bias", outputs) : null);
    }

    private Weight matrix(String name, int rows, int columns) {
      return source.matrix(name, rows, columns);
    }

    private Tensor vector(String name, int length) {
      return source.vector(name, length);
    }
  }
}
