package dev.millrace.inference.pipeline;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.millrace.inference.api.GenerateEvent;
import dev.millrace.inference.checkpoint.InvalidCheckpointException;
import dev.millrace.inference.device.DeviceOptions;
import dev.millrace.inference.engine.EngineConfig;
import dev.millrace.inference.token.TokenizerException;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** The whole way of a prompt on the processor, with a small random checkpoint. */
class CheckpointTest {
  private static final Path CHECKPOINT =
      Path.of("src/test/resources/checkpoints/nemotron-nas-bf16");

  @Test
  void shouldGiveTheSameAnswerAgainAndWhenResumedAtAnyToken(@TempDir Path folder) throws Exception {
    copy(folder);
    try (LlmGenerator generator = open(folder)) {
      Requests request = Requests.seed(5).maxTokens(24);
      Listener whole = run(generator, request);
      GenerateEvent.Done expected = whole.done();
      assertThat(expected.content()).isNotEmpty().isEqualTo(whole.content());
      int[] tokens = whole.tokens();
      assertThat(tokens).hasSize(expected.usage().completion());
      assertThat(run(generator, request).done().content()).isEqualTo(expected.content());
      for (int at = 1; at <= tokens.length; at++) {
        Listener resumed = run(generator, request.resume(Arrays.copyOf(tokens, at)));
        assertThat(resumed.done().content()).as("resumed at %s", at).isEqualTo(expected.content());
        assertThat(resumed.done().finish()).isEqualTo(expected.finish());
        assertThat(resumed.tokens()).containsExactly(Arrays.copyOfRange(tokens, at, tokens.length));
      }
    }
    try (LlmGenerator again = open(folder)) {
      Listener listener = run(again, Requests.seed(5).maxTokens(24));
      assertThat(listener.done().content()).isNotEmpty();
    }
  }

  @Test
  void shouldSayWhatIsWrongWithACheckpoint(@TempDir Path folder) throws Exception {
    assertThatThrownBy(() -> open(folder))
        .isInstanceOf(TokenizerException.class)
        .hasMessageContaining("tokenizer.json");
    copy(folder);
    Files.delete(folder.resolve("model.safetensors"));
    assertThatThrownBy(() -> open(folder)).isInstanceOf(InvalidCheckpointException.class);
    Files.writeString(folder.resolve("chat_template.jinja"), "{% if %}");
    assertThatThrownBy(() -> open(folder))
        .isInstanceOf(IOException.class)
        .hasMessageContaining("chat_template.jinja")
        .hasMessageContaining("line 1");
  }

  private static LlmGenerator open(Path folder) throws IOException {
    return LlmGenerator.open(
        folder,
        EngineConfig.defaults().withMaxSequences(8).withTokenBudget(64),
        DeviceOptions.of("cpu").withThreads(1).withKvBlocks(64),
        LlmGenerator.Options.of("small"));
  }

  private static Listener run(LlmGenerator generator, Requests request) throws Exception {
    Listener listener = new Listener();
    generator.submit(request.build(), listener);
    listener.end();
    return listener;
  }

  /** The checkpoint, with a tokenizer of as many tokens as it has. */
  private static void copy(Path folder) throws IOException {
    try (DirectoryStream<Path> files = Files.newDirectoryStream(CHECKPOINT)) {
      for (Path file : files) {
        if (Files.isRegularFile(file)) {
          Files.copy(file, folder.resolve(file.getFileName()));
        }
      }
    }
    ObjectMapper mapper = new ObjectMapper();
    int size = mapper.readTree(folder.resolve("config.json").toFile()).path("vocab_size").asInt();
    ObjectNode tokenizer = mapper.createObjectNode();
    ArrayNode added = tokenizer.putArray("added_tokens");
    String[] specials = {"<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"};
    for (int id = 0; id < specials.length; id++) {
      added.addObject().put("id", id).put("content", specials[id]).put("special", true);
    }
    tokenizer
        .putObject("pre_tokenizer")
        .put("type", "ByteLevel")
        .put("add_prefix_space", false)
        .put("trim_offsets", true)
        .put("use_regex", true);
    tokenizer
        .putObject("decoder")
        .put("type", "ByteLevel")
        .put("add_prefix_space", true)
        .put("trim_offsets", true)
        .put("use_regex", true);
    ObjectNode model = tokenizer.putObject("model").put("type", "BPE");
    ObjectNode vocabulary = model.putObject("vocab");
    // U+0120 and U+010A are space and line break in the byte alphabet.
    String characters =
        "\u0120\u010A"
            + "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ<>|_/.,:\"{}[]?!";
    for (int i = 0; i + specials.length < size; i++) {
      vocabulary.put(characters.substring(i, i + 1), i + specials.length);
    }
    model.putArray("merges");
    Files.writeString(
        folder.resolve("tokenizer.json"), tokenizer.toString(), StandardCharsets.UTF_8);
    Files.writeString(
        folder.resolve("tokenizer_config.json"), "{\"bos_token\": \"<|begin_of_text|>\"}");
    Files.writeString(
        folder.resolve("chat_template.jinja"),
        "<|begin_of_text|>{% for m in messages %}{{ m.role }}: {{ m.content }}<|eot_id|>{% endfor"
            + " %}");
  }
}
