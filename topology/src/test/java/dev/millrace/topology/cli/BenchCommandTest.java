package dev.millrace.topology.cli;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import dev.millrace.topology.Main;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import picocli.CommandLine;

/** The benchmarks on a shape so small that they end at once. */
final class BenchCommandTest {
  @TempDir Path temp;

  private final StringWriter out = new StringWriter();
  private final StringWriter err = new StringWriter();
  private Path config = Path.of("");

  @BeforeEach
  void writeAShape() throws Exception {
    config =
        Files.writeString(
            temp.resolve("small.json"),
            """
            {"architectures": ["LlamaForCausalLM"], "vocab_size": 300, "hidden_size": 64,
             "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
             "intermediate_size": 128, "num_hidden_layers": 2, "max_position_embeddings": 128,
             "rms_norm_eps": 1e-5, "rope_theta": 10000, "tie_word_embeddings": false}
            """);
  }

  private int run(String benchmark, String... args) {
    CommandLine line = Main.commandLine();
    line.setOut(new PrintWriter(out, true)).setErr(new PrintWriter(err, true));
    List<String> all = new ArrayList<>(List.of("bench", benchmark, "--config", config.toString()));
    all.addAll(List.of(args));
    return line.execute(all.toArray(String[]::new));
  }

  @Test
  void shouldMeasureTheEngineOnAShapeAlone() throws Exception {
    int exit = run("engine", "--isl", "20", "--osl", "6", "--requests", "5", "--json");
    assertThat(err.toString()).isEmpty();
    assertThat(exit).isZero();
    JsonNode json = new ObjectMapper().readTree(out.toString());
    assertThat(json.path("isl").asInt()).isEqualTo(20);
    assertThat(json.path("made_up_weights").asBoolean()).isTrue();
    JsonNode result = json.path("result");
    assertThat(result.path("output_tokens").asInt()).isEqualTo(30);
    assertThat(result.path("output_tokens_per_second").asDouble())
        .isEqualTo(30 / result.path("seconds").asDouble());
    assertThat(result.path("first_token_ms").path("count").asInt()).isEqualTo(5);
    assertThat(result.path("of_roofline").asDouble()).isPositive();
    assertThat(result.path("ceiling_read_bytes_per_second").asDouble()).isGreaterThan(1e8);
  }

  @Test
  void shouldServeSeveralShapesInOneProcess() throws Exception {
    int exit =
        run(
            "engine",
            "--isl",
            "20,8",
            "--osl",
            "6,9",
            "--requests",
            "5,3",
            "--concurrency",
            "2,1",
            "--json");
    assertThat(err.toString()).isEmpty();
    assertThat(exit).isZero();
    JsonNode json = new ObjectMapper().readTree(out.toString());
    assertThat(json).extracting(r -> r.path("isl").asInt()).containsExactly(20, 8);
    assertThat(json).extracting(r -> r.path("osl").asInt()).containsExactly(6, 9);
    assertThat(json).extracting(r -> r.path("concurrency").asInt()).containsExactly(2, 1);
    assertThat(json)
        .extracting(r -> r.path("result").path("output_tokens").asInt())
        .containsExactly(30, 27);
    assertThat(json)
        .extracting(r -> r.path("result").path("first_token_ms").path("count").asInt())
        .containsExactly(5, 3);
  }

  @Test
  void shouldTakeWhatIsGivenOnceForAllShapes() throws Exception {
    assertThat(run("engine", "--isl", "8", "--osl", "2,70", "--requests", "2", "--json")).isZero();
    JsonNode json = new ObjectMapper().readTree(out.toString());
    assertThat(json)
        .extracting(r -> r.path("result").path("output_tokens").asInt())
        .containsExactly(4, 140);
    assertThat(json).extracting(r -> r.path("isl").asInt()).containsExactly(8, 8);
  }

  @Test
  void shouldRefuseShapesWhoseListsDiffer() {
    assertThat(run("engine", "--isl", "8,9", "--osl", "2,3,4")).isEqualTo(1);
    assertThat(err.toString())
        .contains(
            "isl, osl, requests and concurrency name 2, 3, 1 and 1 shapes: each takes one number");
    assertThat(run("stream", "--isl", "8,9")).isEqualTo(1);
    assertThat(err.toString()).contains("one shape at a time is served here");
  }

  @Test
  void shouldRefuseALaterShapeBeforeAnyIsServed() {
    assertThat(run("engine", "--isl", "8,120", "--osl", "9", "--kv-blocks", "20")).isEqualTo(1);
    assertThat(err.toString()).contains("isl and osl are 129 tokens together");
    assertThat(out.toString()).isEmpty();
  }

  @Test
  void shouldTimeTheOperationsOfAShapeAlone() throws Exception {
    int exit =
        run(
            "kernels",
            "--rows=2",
            "--sequences=2",
            "--context=20",
            "--prompt=8",
            "--rotate=1",
            "--seconds=0",
            "--only=linear",
            "--json");
    assertThat(err.toString()).isEmpty();
    assertThat(exit).isZero();
    JsonNode results = new ObjectMapper().readTree(out.toString()).path("results");
    assertThat(results).hasSize(3);
    assertThat(results)
        .allSatisfy(r -> assertThat(r.path("operation").asText()).startsWith("linear"))
        .allSatisfy(r -> assertThat(r.path("of_ceiling").asDouble()).isPositive());
  }

  @Test
  void shouldServeTheSameRequestsThroughABroker() throws Exception {
    int exit = run("stream", "--isl", "20", "--osl", "6", "--requests", "5", "--json");
    assertThat(err.toString()).isEmpty();
    assertThat(exit).isZero();
    JsonNode json = new ObjectMapper().readTree(out.toString());
    assertThat(json.path("result").path("output_tokens").asInt()).isEqualTo(30);
    JsonNode stream = json.path("stream");
    assertThat(stream.path("output_tokens").asInt()).isEqualTo(30);
    assertThat(json.path("stream_to_engine").asDouble())
        .isEqualTo(
            stream.path("output_tokens_per_second").asDouble()
                / json.path("result").path("output_tokens_per_second").asDouble());
  }

  @Test
  void shouldSayWhichFormatsADeviceHas() {
    assertThat(run("engine", "--kv-dtype", "fp8")).isEqualTo(1);
    assertThat(err.toString())
        .isEqualToNormalizingNewlines(
            "millrace: the cpu backend has no keys and values of fp8: kv-dtype is one of auto,"
                + " f32\n");
  }

  @Test
  void shouldRefuseRequestsThatAreTooLong() {
    assertThat(run("engine", "--isl", "120", "--osl", "9", "--kv-blocks", "20")).isEqualTo(1);
    assertThat(err.toString())
        .contains("isl and osl are 129 tokens together; model and KV memory take 128");
  }

  @Test
  void shouldRefuseAShapeThatIsNoConfig() throws Exception {
    Files.writeString(config, "{}");
    assertThat(run("engine")).isEqualTo(1);
    assertThat(err.toString()).startsWith("millrace: ").contains("small.json").hasLineCount(1);
  }
}
