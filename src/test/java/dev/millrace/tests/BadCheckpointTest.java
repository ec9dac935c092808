package dev.millrace.tests;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.millrace.topology.Environment;
import dev.millrace.topology.Main;
import java.io.IOException;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.List;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import picocli.CommandLine;

/** {@code millrace worker} before a checkpoint that it cannot serve: one line that says why. */
final class BadCheckpointTest {
  @TempDir Path temp;

  /** What is wrong, and what the message says. */
  enum Damage {
    NO_FOLDER("there is no folder"),
    EMPTY_FOLDER("there is no such file"),
    CUT_WEIGHTS("model.safetensors"),
    HEADER_LENGTH("model.safetensors"),
    MISSING_TENSOR("model.layers.1.mlp.up_proj.weight"),
    WRONG_SHAPE("model.embed_tokens.weight"),
    UNKNOWN_ARCHITECTURE("MambaForCausalLM"),
    UNKNOWN_ROPE("longrope"),
    BROKEN_TOKENIZER("tokenizer.json"),
    TEMPLATE_WITH_AN_ERROR("chat_template.jinja"),
    BROKEN_CONFIG("config.json");

    private final String message;

    Damage(String message) {
      this.message = message;
    }
  }

  @ParameterizedTest
  @EnumSource(Damage.class)
  void shouldSayInOneLineWhyItCannotBeServed(Damage damage) throws Exception {
    Path folder = temp.resolve("model");
    if (damage != Damage.NO_FOLDER && damage != Damage.EMPTY_FOLDER) {
      RandomCheckpoint.write(folder, Environment.home(), 1);
    }
    damage(damage, folder);
    Path config =
        Files.writeString(
            temp.resolve("worker.properties"),
            "kafka.bootstrap.servers=127.0.0.1:1\nregistry.url=http://127.0.0.1:1\nmodel.path="
                + folder
                + "\n");
    StringWriter err = new StringWriter();
    CommandLine line = Main.commandLine().setErr(new PrintWriter(err, true));
    assertThat(line.execute("worker", "--config", config.toString()))
        .as("exit code, %s", err)
        .isIn(1, 4);
    List<String> lines = err.toString().lines().toList();
    assertThat(lines).as("one line").hasSize(1);
    assertThat(lines.getFirst()).startsWith("millrace: ").contains(damage.message, "model");
  }

  private static void damage(Damage damage, Path folder) throws IOException {
    Path weights = folder.resolve("model.safetensors");
    Path config = folder.resolve("config.json");
    switch (damage) {
      case NO_FOLDER -> {}
      case EMPTY_FOLDER -> Files.createDirectories(folder);
      case CUT_WEIGHTS -> {
        try (FileChannel file = FileChannel.open(weights, StandardOpenOption.WRITE)) {
          file.truncate(file.size() - 1000);
        }
      }
      case HEADER_LENGTH -> {
        byte[] bytes = Files.readAllBytes(weights);
        bytes[6] = 0x7f;
        Files.write(weights, bytes);
      }
      case MISSING_TENSOR ->
          RandomCheckpoint.dropTensor(folder, "model.layers.1.mlp.up_proj.weight");
      case WRONG_SHAPE ->
          RandomCheckpoint.edit(
              config, c -> c.put("vocab_size", c.get("vocab_size").intValue() + 1));
      case UNKNOWN_ARCHITECTURE ->
          RandomCheckpoint.edit(config, c -> c.putArray("architectures").add("MambaForCausalLM"));
      case UNKNOWN_ROPE ->
          RandomCheckpoint.edit(
              config,
              c -> {
                ObjectNode rope = c.putObject("rope_scaling");
                rope.put("rope_type", "longrope").put("factor", 4.0);
              });
      case BROKEN_TOKENIZER ->
          Files.writeString(folder.resolve("tokenizer.json"), "{\"model\": {\"type\": \"BPE\"");
      case TEMPLATE_WITH_AN_ERROR ->
          Files.writeString(
              folder.resolve("chat_template.jinja"), "{% for m in messages %}{{ m.content }}");
      case BROKEN_CONFIG -> Files.writeString(config, "{\"architectures\": [");
    }
  }
}
