package dev.millrace.tests;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import dev.millrace.topology.Environment;
import dev.millrace.topology.SyntheticGenerator;
import dev.millrace.topology.Worker;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.ExtendWith;

/** A client that is not Java: src/test/node with kafkajs and its registry client. */
@ExtendWith(LocalCluster.Extension.class)
final class NodeClientTest {
  private static final List<String> FILES =
      List.of("package.json", "package-lock.json", ".npmrc", "ask.js");

  @Test
  void shouldAnswerAClientInNode(Cluster cluster) throws Exception {
    Path home = Environment.home();
    assumeTrue(runs("node", "--version"), "there is no node on this machine");
    assumeTrue(runs("npm", "--version"), "there is no npm on this machine");
    Path node = home.resolve("src/test/target/node");
    Files.createDirectories(node);
    for (String file : FILES) {
      Files.copy(
          home.resolve("src/test/node").resolve(file),
          node.resolve(file),
          StandardCopyOption.REPLACE_EXISTING);
    }
    if (!Files.exists(node.resolve("node_modules/.package-lock.json"))) {
      String said = run(node, "npm", "ci", "--ignore-scripts", "--no-progress");
      assumeTrue(
          Files.exists(node.resolve("node_modules/.package-lock.json")),
          () -> "npm cannot fetch the client's packages here: " + said);
    }
    try (Scene scene = Scene.on(cluster, Map.of());
        SyntheticGenerator generator = SyntheticGenerator.atOnce("synthetic");
        Worker worker = Workers.start(scene, generator)) {
      String said =
          run(
              node,
              "node",
              "ask.js",
              "--bootstrap",
              cluster.bootstrap(),
              "--registry",
              cluster.registry().url(),
              "--prompts",
              scene.config().topics().prompts(),
              "--completions",
              scene.config().topics().completions(),
              "--schema",
              home.resolve("schemas/src/main/avro/PromptEvent.avsc").toString(),
              "What is 345 + 287?");
      String last = said.lines().reduce("", (a, b) -> b);
      assertThat(last).as(said).startsWith("{");
      JsonNode completion = new ObjectMapper().readTree(last);
      assertThat(completion.path("promptId").textValue()).startsWith("node-");
      assertThat(completion.path("model").textValue()).isEqualTo("synthetic");
      assertThat(completion.path("finishReason").textValue()).isEqualTo("LENGTH");
      assertThat(completion.path("content").textValue()).startsWith("w");
    }
  }

  private static boolean runs(String... command) throws InterruptedException {
    try {
      return new ProcessBuilder(command)
              .redirectErrorStream(true)
              .redirectOutput(ProcessBuilder.Redirect.DISCARD)
              .start()
              .waitFor()
          == 0;
    } catch (IOException e) {
      return false;
    }
  }

  private static String run(Path folder, String... command) throws Exception {
    Process process =
        new ProcessBuilder(command).directory(folder.toFile()).redirectErrorStream(true).start();
    process.getOutputStream().close();
    String said = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
    if (!process.waitFor(90, TimeUnit.SECONDS)) {
      process.destroyForcibly();
    }
    return said;
  }
}
