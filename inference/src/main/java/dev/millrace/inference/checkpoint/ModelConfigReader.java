package dev.millrace.inference.checkpoint;

import com.fasterxml.jackson.databind.JsonNode;
import dev.millrace.inference.checkpoint.BlockConfig.Attention;
import dev.millrace.inference.checkpoint.BlockConfig.FeedForward;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collection;
import java.util.LinkedHashSet;
import java.util.List;

/** Turns config.json and what lies beside it into a {@link ModelConfig}. */
final class ModelConfigReader {
  private static final String LLAMA = "LlamaForCausalLM";
  private static final String NEMOTRON_NAS = "DeciLMForCausalLM";

  // Far above any model of the family, and low enough that no product of two overflows a long.
  private static final int MAX_SIZE = 1 << 24;
  private static final int MAX_BLOCKS = 4096;

  private final Path file;
  private final JsonObject config;

  ModelConfigReader(Path file) {
    this.file = file;
    this.config = JsonObject.read(file);
  }

  ModelConfig read() {
    String architecture = architecture();
    if (config.has("hidden_act") && !config.text("hidden_act").equals("silu")) {
      throw config.unsupported("hidden_act", "silu");
    }
    int hidden = config.positive("hidden_size", MAX_SIZE);
    int heads = config.positive("num_attention_heads", MAX_SIZE);
    int headDim = headDim(hidden, heads);
    int blocks = config.positive("num_hidden_layers", MAX_BLOCKS);
    int maxContext = config.positive("max_position_embeddings", 1 << 30);
    int vocab = config.positive("vocab_size", MAX_SIZE);
    return new ModelConfig(
        architecture,
        vocab,
        hidden,
        heads,
        headDim,
        maxContext,
        (float) config.positiveNumber("rms_norm_eps"),
        config.flag("tie_word_embeddings", false),
        rope(maxContext),
        architecture.equals(LLAMA) ? llama(blocks, heads) : nemotronNas(blocks, heads, hidden),
        specialTokens(vocab),
        QuantizationConfig.read(config, file));
  }

  private String architecture() {
    JsonNode names = config.get("architectures");
    String name = names.path(0).asText("");
    if (names.size() != 1 || !(name.equals(LLAMA) || name.equals(NEMOTRON_NAS))) {
      throw config.unsupported("architectures", LLAMA + " and " + NEMOTRON_NAS);
    }
    return name;
  }

  private int headDim(int hidden, int heads) {
    if (!config.has("head_dim") && hidden % heads != 0) {
      throw config.bad("head_dim", "a number, since heads do not divide hidden_size");
    }
    int headDim = config.has("head_dim") ? config.positive("head_dim", 1 << 16) : hidden / heads;
    if ((long) heads * headDim > MAX_SIZE) {
      throw config.bad(
          "head_dim",
          "less: "
              + heads
              + " heads of "
              + headDim
              + " make a row of more than "
              + MAX_SIZE
              + " numbers");
    }
    if (headDim % 2 != 0) {
      throw config.bad("head_dim", "an even number, since positions turn pairs; it is " + headDim);
    }
    return headDim;
  }

  private List<BlockConfig> llama(int blocks, int heads) {
    int kvHeads = config.has("num_key_value_heads") ? kvHeads(heads) : heads;
    BlockConfig block =
        new BlockConfig(
            new Attention.Heads(kvHeads, config.flag("attention_bias", false)),
            new FeedForward.SwiGlu(
                config.positive("intermediate_size", MAX_SIZE), config.flag("mlp_bias", false)));
    return java.util.Collections.nCopies(blocks, block);
  }

  private int kvHeads(int heads) {
    int kvHeads = config.positive("num_key_value_heads", heads);
    if (heads % kvHeads != 0) {
      throw config.bad("num_key_value_heads", "a divisor of the " + heads + " attention heads");
    }
    return kvHeads;
  }

  private List<BlockConfig> nemotronNas(int blocks, int heads, int hidden) {
    if (!config.get("block_configs").isArray() || config.get("block_configs").size() != blocks) {
      throw config.bad("block_configs", "an array of num_hidden_layers = " + blocks + " blocks");
    }
    List<BlockConfig> list = new ArrayList<>();
    for (int i = 0; i < blocks; i++) {
      JsonObject block = config.element("block_configs", i);
      list.add(
          new BlockConfig(
              attention(block.object("attention"), heads),
              feedForward(block.object("ffn"), hidden)));
    }
    return list;
  }

  private Attention attention(JsonObject attention, int heads) {
    for (String key :
        List.of(
            "num_sink_tokens",
            "sparsify",
            "unshifted_sink",
            "use_prefill_window_in_sink_attention",
            "window_length")) {
      refuseSet(attention, key);
    }
    boolean absent = attention.flag("no_op", false);
    boolean linear = attention.flag("replace_with_linear", false);
    if (absent && linear) {
      throw attention.bad("replace_with_linear", "false, since no_op is true as well");
    }
    if (absent) {
      return new Attention.Absent();
    }
    if (linear) {
      return new Attention.Linear();
    }
    int group = attention.positive("n_heads_in_group", heads);
    if (heads % group != 0) {
      throw attention.bad("n_heads_in_group", "a divisor of the " + heads + " attention heads");
    }
    return new Attention.Heads(heads / group, config.flag("attention_bias", false));
  }

  private FeedForward feedForward(JsonObject ffn, int hidden) {
    refuseSet(ffn, "sparsify");
    boolean absent = ffn.flag("no_op", false);
    boolean linear = ffn.flag("replace_with_linear", false);
    if (absent && linear) {
      throw ffn.bad("replace_with_linear", "false, since no_op is true as well");
    }
    if (absent) {
      return new FeedForward.Absent();
    }
    if (linear) {
      return new FeedForward.Linear();
    }
    // The family's rule: two thirds of mult · hidden, rounded up to a multiple of 256.
    double width = Math.floor(2 * ffn.positiveNumber("ffn_mult") * hidden / 3);
    double rounded = Math.ceil(width / 256) * 256;
    if (rounded < 1 || rounded > MAX_SIZE) {
      throw ffn.bad("ffn_mult", "a multiple that gives a width from 1 to " + MAX_SIZE);
    }
    return new FeedForward.SwiGlu((int) rounded, config.flag("mlp_bias", false));
  }

  /** Both spellings: rope_theta beside rope_scaling, and all of it inside rope_parameters. */
  private RopeConfig rope(int maxContext) {
    String key = config.has("rope_parameters") ? "rope_parameters" : "rope_scaling";
    if (!config.has(key)) {
      return new RopeConfig.Plain(config.positiveNumber("rope_theta", 10_000));
    }
    JsonObject rope = config.object(key);
    double theta =
        rope.has("rope_theta")
            ? rope.positiveNumber("rope_theta")
            : config.positiveNumber("rope_theta", 10_000);
    if (theta <= 1) {
      throw config.bad("rope_theta", "a number above 1");
    }
    if (rope.positiveNumber("partial_rotary_factor", 1) != 1) {
      throw rope.unsupported("partial_rotary_factor", "1");
    }
    String typeKey = rope.has("rope_type") ? "rope_type" : "type";
    String type = rope.has(typeKey) ? rope.text(typeKey) : "default";
    return switch (type) {
      case "default" -> new RopeConfig.Plain(theta);
      case "llama3" -> llama3(rope, theta);
      case "yarn" -> yarn(rope, theta, maxContext);
      default -> throw rope.unsupported(typeKey, "default, llama3 and yarn");
    };
  }

  private static RopeConfig llama3(JsonObject rope, double theta) {
    double low = rope.positiveNumber("low_freq_factor");
    double high = rope.positiveNumber("high_freq_factor");
    if (high <= low) {
      throw rope.bad("high_freq_factor", "a number above low_freq_factor = " + low);
    }
    return new RopeConfig.Llama3(
        theta,
        rope.positiveNumber("factor"),
        low,
        high,
        rope.positive("original_max_position_embeddings", 1 << 30));
  }

  private static RopeConfig yarn(JsonObject rope, double theta, int maxContext) {
    String original = "original_max_position_embeddings";
    int originalContext = rope.has(original) ? rope.positive(original, 1 << 30) : maxContext;
    double factor =
        rope.has("factor") ? rope.positiveNumber("factor") : (double) maxContext / originalContext;
    double betaFast = rope.positiveNumber("beta_fast", 32);
    double betaSlow = rope.positiveNumber("beta_slow", 1);
    if (betaFast < betaSlow) {
      throw rope.bad("beta_fast", "a number of at least beta_slow = " + betaSlow);
    }
    return new RopeConfig.Yarn(
        theta,
        factor,
        originalContext,
        betaFast,
        betaSlow,
        attentionFactor(rope, factor),
        rope.flag("truncate", true));
  }

  private static double attentionFactor(JsonObject rope, double factor) {
    if (rope.has("attention_factor")) {
      return rope.positiveNumber("attention_factor");
    }
    // Zero counts as not given, as in the reference.
    if (rope.get("mscale").doubleValue() != 0 && rope.get("mscale_all_dim").doubleValue() != 0) {
      return mscale(factor, rope.positiveNumber("mscale"))
          / mscale(factor, rope.positiveNumber("mscale_all_dim"));
    }
    return mscale(factor, 1);
  }

  private static double mscale(double factor, double weight) {
    return factor <= 1 ? 1 : 0.1 * weight * Math.log(factor) + 1;
  }

  private ModelConfig.SpecialTokens specialTokens(int vocab) {
    LinkedHashSet<Integer> eos = new LinkedHashSet<>();
    Path generation = file.resolveSibling("generation_config.json");
    if (Files.exists(generation)) {
      addIds(JsonObject.read(generation), vocab, eos);
    }
    addIds(config, vocab, eos);
    LinkedHashSet<Integer> bos = new LinkedHashSet<>();
    addIds(config, "bos_token_id", vocab, bos);
    return new ModelConfig.SpecialTokens(
        bos.isEmpty() ? -1 : bos.iterator().next(), List.copyOf(eos));
  }

  private static void addIds(JsonObject object, int vocab, Collection<Integer> ids) {
    addIds(object, "eos_token_id", vocab, ids);
  }

  private static void addIds(JsonObject object, String key, int vocab, Collection<Integer> ids) {
    if (!object.has(key)) {
      return;
    }
    JsonNode value = object.get(key);
    for (JsonNode id : value.isArray() ? value : List.of(value)) {
      if (!id.isIntegralNumber()
          || !id.canConvertToInt()
          || id.intValue() < 0
          || id.intValue() >= vocab) {
        throw object.bad(key, "a token id, or an array of them, from 0 to " + (vocab - 1));
      }
      ids.add(id.intValue());
    }
  }

  /** Null, false and absent all mean that a variant of attention is not used. */
  private static void refuseSet(JsonObject object, String key) {
    JsonNode value = object.get(key);
    boolean off =
        value.isMissingNode() || value.isNull() || (value.isBoolean() && !value.booleanValue());
    if (!off) {
      throw object.unsupported(key, "null");
    }
  }
}
