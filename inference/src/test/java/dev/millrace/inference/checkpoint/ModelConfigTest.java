package dev.millrace.inference.checkpoint;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.millrace.inference.checkpoint.BlockConfig.Attention;
import dev.millrace.inference.checkpoint.BlockConfig.FeedForward;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

class ModelConfigTest {
  private static final ObjectMapper JSON = new ObjectMapper();

  private static final String LLAMA =
      """
      {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 100,
       "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2,
       "intermediate_size": 96, "num_hidden_layers": 3, "max_position_embeddings": 4096,
       "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "hidden_act": "silu", "bos_token_id": 7,
       "eos_token_id": 8}
      """;

  private static final String NAS =
      """
      {"architectures": ["DeciLMForCausalLM"], "model_type": "nemotron-nas", "vocab_size": 128256,
       "hidden_size": 8192, "num_attention_heads": 64, "num_key_value_heads": null,
       "intermediate_size": null, "num_hidden_layers": 1, "max_position_embeddings": 131072,
       "rms_norm_eps": 1e-5, "block_configs": [
         {"attention": {"n_heads_in_group": 8, "no_op": false, "replace_with_linear": false,
                        "num_sink_tokens": null, "sparsify": null, "unshifted_sink": false,
                        "use_prefill_window_in_sink_attention": false, "window_length": null},
          "ffn": {"ffn_mult": 5.25, "no_op": false, "replace_with_linear": false,
                  "sparsify": null}}]}
      """;

  @TempDir Path folder;

  private ModelConfig read(JsonNode config) {
    try {
      Files.writeString(folder.resolve("config.json"), config.toString());
    } catch (IOException e) {
      throw new java.io.UncheckedIOException(e);
    }
    return ModelConfig.read(folder);
  }

  private static ObjectNode llama() throws IOException {
    return (ObjectNode) JSON.readTree(LLAMA);
  }

  private static ObjectNode llamaWith(String key, String json) throws IOException {
    ObjectNode config = llama();
    config.set(key, JSON.readTree(json));
    return config;
  }

  private static ObjectNode nasWith(String part, String key, String json) throws IOException {
    ObjectNode config = (ObjectNode) JSON.readTree(NAS);
    ((ObjectNode) config.at("/block_configs/0/" + part)).set(key, JSON.readTree(json));
    return config;
  }

  @Test
  void shouldReadALlama() throws IOException {
    ModelConfig config = read(llama());
    assertThat(config.headDim()).isEqualTo(16);
    assertThat(config.rope()).isEqualTo(new RopeConfig.Plain(500_000));
    assertThat(config.tiedEmbeddings()).isFalse();
    assertThat(config.blocks())
        .hasSize(3)
        .containsOnly(
            new BlockConfig(new Attention.Heads(2, false), new FeedForward.SwiGlu(96, false)));
    assertThat(config.tokens().bos()).isEqualTo(7);
    assertThat(config.tokens().eosIds()).containsExactly(8);
  }

  @Test
  void shouldTakeHeadDimFromTheConfigWhereHiddenSizeSaysOtherwise() throws IOException {
    assertThat(read(llamaWith("head_dim", "128")).headDim()).isEqualTo(128);
  }

  @Test
  void shouldKeepEveryDigitOfTheta() throws IOException {
    assertThat(read(llamaWith("rope_theta", "3565775107.2609234")).rope().theta())
        .isEqualTo(3565775107.2609234);
  }

  @Test
  void shouldReadBiases() throws IOException {
    ObjectNode config = llamaWith("attention_bias", "true");
    config.put("mlp_bias", true);
    assertThat(read(config).blocks().get(0))
        .isEqualTo(new BlockConfig(new Attention.Heads(2, true), new FeedForward.SwiGlu(96, true)));
  }

  @Test
  void shouldUniteTheStopTokensOfBothFiles() throws IOException {
    Files.writeString(folder.resolve("generation_config.json"), "{\"eos_token_id\": [9, 8, 3]}");
    assertThat(read(llama()).tokens().eosIds()).containsExactly(9, 8, 3);
  }

  @Test
  void shouldReadLlama3RopeInBothSpellings() throws IOException {
    String rope =
        "{%s\"rope_type\": \"llama3\", \"factor\": 8.0, \"low_freq_factor\": 1.0,"
            + " \"high_freq_factor\": 4.0, \"original_max_position_embeddings\": 8192}";
    RopeConfig expected = new RopeConfig.Llama3(500_000, 8, 1, 4, 8192);
    assertThat(read(llamaWith("rope_scaling", rope.formatted(""))).rope()).isEqualTo(expected);
    ObjectNode newer = llamaWith("rope_parameters", rope.formatted("\"rope_theta\": 500000.0, "));
    newer.remove("rope_theta");
    assertThat(read(newer).rope()).isEqualTo(expected);
  }

  @Test
  void shouldReadYarnWithItsDefaults() throws IOException {
    ObjectNode config =
        llamaWith(
            "rope_scaling",
            "{\"type\": \"yarn\", \"factor\": 128.0, \"original_max_position_embeddings\": 8192}");
    assertThat(read(config).rope())
        .isEqualTo(new RopeConfig.Yarn(500_000, 128, 8192, 32, 1, 0.1 * Math.log(128) + 1, true));
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = ';',
      value = {
        "\"attention_factor\": 1.25; 1.25",
        "\"mscale\": 2.0, \"mscale_all_dim\": 1.0; 1.3267",
        "\"mscale\": 0, \"mscale_all_dim\": 0; 1.4852"
      })
  void shouldTakeYarnsAttentionFactorFromWhatIsGiven(String keys, double expected)
      throws IOException {
    ObjectNode config =
        llamaWith("rope_scaling", "{\"type\": \"yarn\", \"factor\": 128.0, " + keys + "}");
    assertThat(((RopeConfig.Yarn) read(config).rope()).attentionFactor())
        .isCloseTo(expected, org.assertj.core.data.Offset.offset(1e-4));
  }

  @ParameterizedTest
  @CsvSource({"5.25,28672", "3.28125,17920", "2.625,14336", "1.3125,7168", "1.0,5632", "0.5,2816"})
  void shouldRoundTheWidthsOfNemotronNas(String mult, int width) throws IOException {
    assertThat(read(nasWith("ffn", "ffn_mult", mult)).blocks().get(0))
        .isEqualTo(
            new BlockConfig(new Attention.Heads(8, false), new FeedForward.SwiGlu(width, false)));
  }

  @Test
  void shouldReadAbsentAndLinearParts() throws IOException {
    assertThat(read(nasWith("attention", "no_op", "true")).blocks().get(0).attention())
        .isEqualTo(new Attention.Absent());
    assertThat(read(nasWith("attention", "replace_with_linear", "true")).blocks().get(0).kvHeads())
        .isZero();
    assertThat(read(nasWith("ffn", "no_op", "true")).blocks().get(0).feedForward())
        .isEqualTo(new FeedForward.Absent());
    assertThat(read(nasWith("ffn", "replace_with_linear", "true")).blocks().get(0).feedForward())
        .isEqualTo(new FeedForward.Linear());
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = ';',
      value = {
        "num_sink_tokens; 4",
        "window_length; 128",
        "unshifted_sink; true",
        "use_prefill_window_in_sink_attention; true",
        "sparsify; [1]"
      })
  void shouldRefuseVariantsOfAttention(String key, String value) throws IOException {
    ObjectNode config = nasWith("attention", key, value);
    assertThatThrownBy(() -> read(config))
        .isInstanceOf(InvalidCheckpointException.class)
        .hasMessageContainingAll(
            "config.json", "block_configs[0].attention." + key, "does not support");
  }

  @Test
  void shouldRefuseAPartThatIsAbsentAndLinear() throws IOException {
    ObjectNode config = nasWith("ffn", "no_op", "true");
    ((ObjectNode) config.at("/block_configs/0/ffn")).put("replace_with_linear", true);
    assertThatThrownBy(() -> read(config))
        .isInstanceOf(InvalidCheckpointException.class)
        .hasMessageContaining("block_configs[0].ffn.replace_with_linear");
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = ';',
      value = {
        "attention; n_heads_in_group; 7",
        "attention; n_heads_in_group; 0",
        "attention; n_heads_in_group; null",
        "attention; no_op; 1",
        "ffn; ffn_mult; null",
        "ffn; ffn_mult; -1",
        "ffn; ffn_mult; 1e300",
        "ffn; ffn_mult; \"5\""
      })
  void shouldNameWhatIsWrongInABlock(String part, String key, String value) throws IOException {
    ObjectNode config = nasWith(part, key, value);
    assertThatThrownBy(() -> read(config))
        .isInstanceOf(InvalidCheckpointException.class)
        .hasMessageContaining("config.json: block_configs[0]." + part + "." + key);
  }

  @Test
  void shouldWantABlockALayer() throws IOException {
    ObjectNode config = (ObjectNode) JSON.readTree(NAS);
    ((ArrayNode) config.get("block_configs")).removeAll();
    assertThatThrownBy(() -> read(config))
        .isInstanceOf(InvalidCheckpointException.class)
        .hasMessageContaining("block_configs")
        .hasMessageContaining("num_hidden_layers = 1");
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = ';',
      value = {
        "architectures; [\"GemmaForCausalLM\"]; GemmaForCausalLM",
        "architectures; []; LlamaForCausalLM",
        "architectures; null; LlamaForCausalLM",
        "hidden_act; \"gelu\"; gelu",
        "quantization_config; {\"quant_method\": \"modelopt\"}; quantization_config.quant_algo",
        "quantization_config; {\"quant_method\": \"awq\"}; quant_method",
        "quantization_config; {\"quant_method\": \"modelopt\", \"quant_algo\": \"NVFP4\"}; NVFP4",
        "rope_scaling; {\"rope_type\": \"longrope\"}; longrope",
        "rope_scaling; {\"rope_type\": \"dynamic\", \"factor\": 2.0}; default, llama3 and yarn",
        "rope_scaling; {\"rope_type\": \"llama3\"}; rope_scaling.low_freq_factor",
        "rope_scaling; {\"type\": \"yarn\", \"factor\": -1}; rope_scaling.factor",
        "rope_scaling; {\"type\": \"yarn\", \"beta_fast\": 0.5}; beta_slow",
        "rope_scaling; 3; rope_scaling",
        "vocab_size; 0; vocab_size",
        "vocab_size; 99999999999; vocab_size",
        "hidden_size; null; hidden_size",
        "hidden_size; 6.5; hidden_size",
        "hidden_size; 66; head_dim",
        "head_dim; 17; head_dim",
        "num_hidden_layers; 1000000; num_hidden_layers",
        "num_key_value_heads; 3; num_key_value_heads",
        "rms_norm_eps; \"x\"; rms_norm_eps",
        "tie_word_embeddings; 1; tie_word_embeddings",
        "eos_token_id; 100; eos_token_id",
        "eos_token_id; [1, -1]; eos_token_id",
        "eos_token_id; \"x\"; eos_token_id"
      })
  void shouldNameWhatIsWrong(String key, String value, String said) throws IOException {
    ObjectNode config = llamaWith(key, value);
    assertThatThrownBy(() -> read(config))
        .isInstanceOf(InvalidCheckpointException.class)
        .hasMessageContaining("config.json")
        .hasMessageContaining(said);
  }

  @ParameterizedTest
  @ValueSource(strings = {"", "{", "[]", "7", "{\"a\": 1, \"a\": 2}"})
  void shouldRefuseAConfigThatIsNone(String text) throws IOException {
    Files.writeString(folder.resolve("config.json"), text);
    assertThatThrownBy(() -> ModelConfig.read(folder))
        .isInstanceOf(InvalidCheckpointException.class)
        .hasMessageContaining("config.json");
  }

  @Test
  void shouldSayThatTheConfigIsMissing() {
    assertThatThrownBy(() -> ModelConfig.read(folder))
        .isInstanceOf(InvalidCheckpointException.class)
        .hasMessageContaining("config.json is missing");
  }
}
