package dev.millrace.inference.pipeline;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.millrace.inference.api.SamplingParams;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class GenerationDefaultsTest {
  @TempDir private Path folder;

  private SamplingParams read(String json) throws IOException {
    Files.writeString(folder.resolve("generation_config.json"), json);
    return GenerationDefaults.read(folder);
  }

  @Test
  void shouldBeGreedyUnlessTheModelSamples() throws Exception {
    assertThat(GenerationDefaults.read(folder)).isEqualTo(SamplingParams.greedy(1));
    assertThat(read("{\"temperature\": 0.6}")).isEqualTo(SamplingParams.greedy(1));
  }

  @Test
  void shouldTakeTheModelsOwnSampling() throws Exception {
    SamplingParams params = read("{\"do_sample\": true, \"temperature\": 0.6, \"top_p\": 0.95}");
    assertThat(params.temperature()).isEqualTo(0.6f);
    assertThat(params.topP()).isEqualTo(0.95f);
    assertThat(params.topK()).isEqualTo(50);
  }

  @Test
  void shouldNameTheFileAndTheValueThatIsWrong() {
    assertThatThrownBy(() -> read("{\"do_sample\": true, \"top_p\": 7}"))
        .isInstanceOf(IOException.class)
        .hasMessageContaining("generation_config.json")
        .hasMessageContaining("top_p is 7");
    assertThatThrownBy(() -> read("{\"do_sample\": true, \"top_k\": \"x\"}"))
        .isInstanceOf(IOException.class)
        .hasMessageContaining("top_k");
  }
}
