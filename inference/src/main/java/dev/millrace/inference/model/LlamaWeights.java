package dev.millrace.inference.model;

import dev.millrace.inference.backend.Backend.Projection;
import dev.millrace.inference.backend.KvScale;
import dev.millrace.inference.backend.Rotary;
import dev.millrace.inference.backend.Tensor;
import dev.millrace.inference.backend.UniformNetwork;
import dev.millrace.inference.backend.Weight;
import dev.millrace.inference.checkpoint.BlockConfig;
import dev.millrace.inference.checkpoint.ModelConfig;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.Stream;
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

  record Heads(Tensor norm, Layer q, Layer k, Layer v, Layer o, KvScale kvScale)
      implements AttentionPart {}

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
        case Heads(Tensor unused, Layer q, Layer k, Layer v, Layer o, KvScale alsoUnused) ->
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

  /** The network, if all of its blocks are attention and SwiGLU without biases; else null. */
  @Nullable UniformNetwork uniform(ModelConfig config, Rotary rotary) {
    List<UniformNetwork.Block> uniform = new ArrayList<>();
    for (Block block : blocks) {
      if (!(block.attention
                  instanceof Heads(Tensor norm, Layer q, Layer k, Layer v, Layer o, KvScale unused)
              && block.feedForward
                  instanceof SwiGlu(Tensor feedNorm, Layer gate, Layer up, Layer down))
          || Stream.of(q, k, v, o, gate, up, down).anyMatch(layer -> layer.bias != null)) {
        return null;
      }
      uniform.add(
          new UniformNetwork.Block(
              new UniformNetwork.Attention(norm, q.weight, k.weight, v.weight, o.weight),
              new UniformNetwork.FeedForward(feedNorm, gate.weight, up.weight, down.weight)));
    }
    return new UniformNetwork(
        List.copyOf(uniform), config.heads(), rotary, this.norm, output, config.rmsNormEps());
  }

  /** Of each block; those without attention have none to use. */
  List<KvScale> kvScales() {
    return blocks.stream()
        .map(b -> b.attention instanceof Heads heads ? heads.kvScale : KvScale.NONE)
        .toList();
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
            new Matrix(
                vector(norm, hidden), layer(self + "linear_attn", hidden, hidden, false).weight);
        case BlockConfig.Attention.Heads heads -> {
          int q = config.heads() * config.headDim();
          int kv = heads.kvHeads() * config.headDim();
          Tensor weight = vector(norm, hidden);
          List<Layer> qkv =
              layers(
                  hidden,
                  heads.bias(),
                  new WeightSource.Layer(self + "q_proj", q),
                  new WeightSource.Layer(self + "k_proj", kv),
                  new WeightSource.Layer(self + "v_proj", kv));
          Layer o = layer(self + "o_proj", hidden, q, heads.bias());
          float keys = source.kvScale(self + "k_proj.k_scale");
          float values = source.kvScale(self + "v_proj.v_scale");
          yield new Heads(weight, qkv.get(0), qkv.get(1), qkv.get(2), o, new KvScale(keys, values));
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
            new Matrix(
                vector(norm, hidden), layer(mlp + "linear_mlp", hidden, hidden, false).weight);
        case BlockConfig.FeedForward.SwiGlu swiGlu -> {
          Tensor weight = vector(norm, hidden);
          List<Layer> gateUp =
              layers(
                  hidden,
                  swiGlu.bias(),
                  new WeightSource.Layer(mlp + "gate_proj", swiGlu.width()),
                  new WeightSource.Layer(mlp + "up_proj", swiGlu.width()));
          Layer down = layer(mlp + "down_proj", hidden, swiGlu.width(), swiGlu.bias());
          yield new SwiGlu(weight, gateUp.get(0), gateUp.get(1), down);
        }
      };
    }

    private Layer layer(String name, int outputs, int inputs, boolean bias) {
      return layers(inputs, bias, new WeightSource.Layer(name, outputs)).getFirst();
    }

    /** Of one input. The matrices come first, one after another: a backend may keep them so. */
    private List<Layer> layers(int inputs, boolean bias, WeightSource.Layer... layers) {
      List<Weight> weights = source.layers(inputs, List.of(layers));
      List<Layer> result = new ArrayList<>();
      for (int i = 0; i < layers.length; i++) {
        WeightSource.Layer layer = layers[i];
        result.add(
            new Layer(
                weights.get(i), bias ? vector(layer.module() + ".bias", layer.rows()) : null));
      }
      return result;
    }

    private Weight matrix(String name, int rows, int columns) {
      return source.matrix(name, rows, columns);
    }

    private Tensor vector(String name, int length) {
      return source.vector(name, length);
    }
  }
}
