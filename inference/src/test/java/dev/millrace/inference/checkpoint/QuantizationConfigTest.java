package dev.millrace.inference.checkpoint;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class QuantizationConfigTest {
  @TempDir Path folder;

  private QuantizationConfig read(String config, String beside) throws IOException {
    Path file = folder.resolve("config.json");
    Files.writeString(file, config);
    if (!beside.isEmpty()) {
      Files.writeString(folder.resolve("hf_quant_config.json"), beside);
    }
    return QuantizationConfig.read(JsonObject.read(file), file);
  }

  @Test
  void shouldReadTheFileBesideConfigJson() throws IOException {
    QuantizationConfig config =
        read(
            "{}",
            """
            {"producer": {"name": "modelopt", "version": "0.23.0"},
             "quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8",
                              "exclude_modules": ["lm_head"]}}\
            """);
    assertThat(config).isEqualTo(new QuantizationConfig(true, true, List.of("lm_head")));
  }

  @Test
  void shouldReadAFileThatLeavesTheCacheAlone() throws IOException {
    QuantizationConfig config =
        read("{}", "{\"quantization\": {\"quant_algo\": \"fp8\", \"kv_cache_quant_algo\": null}}");
    assertThat(config).isEqualTo(new QuantizationConfig(true, false, List.of()));
  }

  @Test
  void shouldReadTheOneInConfigJsonFirst() throws IOException {
    QuantizationConfig config =
        read(
            """
            {"quantization_config": {"quant_method": "modelopt", "quant_algo": "FP8",
               "ignore": ["lm_head", "model.layers.1*"],
               "kv_cache_scheme": {"dynamic": false, "num_bits": 8, "type": "float"}}}\
            """,
            "{\"quantization\": {\"quant_algo\": \"NVFP4\"}}");
    assertThat(config)
        .isEqualTo(new QuantizationConfig(true, true, List.of("lm_head", "model.layers.1*")));
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = ';',
      nullValues = "-",
      value = {
        ", \"kv_cache_quant_algo\": \"FP8\"; null; true",
        "-; \"FP8\"; true",
        "-; null; false",
        ", \"kv_cache_quant_algo\": null; \"FP8\"; false",
        ", \"kv_cache_scheme\": null; \"FP8\"; false"
      })
  void shouldReadTheCachesFormatWhereverItStands(String inBlock, String beside, boolean fp8)
      throws IOException {
    QuantizationConfig config =
        read(
            "{\"quantization_config\": {\"quant_method\": \"modelopt\", \"quant_algo\": \"FP8\"%s}}"
                .formatted(inBlock == null ? "" : inBlock),
            "{\"quantization\": {\"kv_cache_quant_algo\": " + beside + "}}");
    assertThat(config).isEqualTo(new QuantizationConfig(true, fp8, List.of()));
  }

  @Test
  void shouldRefuseACacheWhoseScalesAreMadeAsItRuns() {
    String scheme = "{\"dynamic\": true, \"num_bits\": 8, \"type\": \"float\"}";
    assertThatThrownBy(
            () ->
                read(
                    "{\"quantization_config\": {\"quant_method\": \"modelopt\","
                        + " \"quant_algo\": \"FP8\", \"kv_cache_scheme\": "
                        + scheme
                        + "}}",
                    ""))
        .isInstanceOf(InvalidCheckpointException.class)
        .hasMessageContaining("quantization_config.kv_cache_scheme.dynamic is true");
  }

  @Test
  void shouldSayThatNothingIsQuantised() throws IOException {
    assertThat(read("{}", "")).isSameAs(QuantizationConfig.NONE);
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = ';',
      value = {
        "{\"quantization\": {\"quant_algo\": \"W4A16_AWQ\"}}; quantization.quant_algo is"
            + " \"W4A16_AWQ\"",
        "{\"quantization\": {\"kv_cache_quant_algo\": \"INT8\"}}; kv_cache_quant_algo is \"INT8\"",
        "{\"quantization\": {\"exclude_modules\": \"lm_head\"}}; exclude_modules",
        "{\"quantization\": {\"exclude_modules\": [1]}}; an array of texts",
        "{}; quantization is missing",
        "[]; no JSON object"
      })
  void shouldRefuseWhatItCannotRead(String beside, String message) {
    assertThatThrownBy(() -> read("{}", beside))
        .isInstanceOf(InvalidCheckpointException.class)
        .hasMessageContaining("hf_quant_config.json")
        .hasMessageContaining(message);
  }

  @ParameterizedTest
  @CsvSource({
    "lm_head,lm_head,true",
    "lm_head,model.lm_head,true",
    "model.layers.1,model.layers.1.mlp.down_proj,true",
    "model.layers.1,model.layers.10.mlp.down_proj,false",
    "model.layers.1*,model.layers.10.mlp.down_proj,true",
    "*.down_proj,model.layers.10.mlp.down_proj,true",
    "*.down,model.layers.10.mlp.down_proj,false",
    "model.layers.?.mlp*,model.layers.3.mlp.up_proj,true",
    "model.layers.?.mlp*,model.layers.30.mlp.up_proj,false",
    "down_proj,model.layers.3.mlp.down_proj,true",
    "proj,model.layers.3.mlp.down_proj,false"
  })
  void shouldKnowWhichModulesAreExcluded(String entry, String module, boolean excluded) {
    QuantizationConfig config = new QuantizationConfig(true, false, List.of(entry));
    assertThat(config.excludes(module)).isEqualTo(excluded);
  }

  @Test
  @Timeout(10)
  void shouldMatchAHostilePatternInReasonableTime() {
    QuantizationConfig config =
        new QuantizationConfig(true, false, List.of("*a".repeat(2000) + "b"));
    assertThat(config.excludes("a".repeat(5000))).isFalse();
  }
}
