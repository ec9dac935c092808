package dev.millrace.tests;

import static org.assertj.core.api.Assertions.assertThat;

import dev.millrace.topology.Environment;
import dev.millrace.topology.Main;
import dev.millrace.topology.SyntheticGenerator;
import dev.millrace.topology.Worker;
import dev.millrace.topology.local.ForkedJvm;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.ExtendWith;
import org.junit.jupiter.api.io.TempDir;
import picocli.CommandLine;

/** The commands that people try first. */
@ExtendWith(LocalCluster.Extension.class)
final class DemoTest {
  @TempDir Path temp;

  @Test
  void shouldAnswerEachPromptOfAFileAndEnd() throws Exception {
    Path model = RandomCheckpoint.write(temp.resolve("random"), Environment.home(), 1);
    Path prompts =
        Files.writeString(
            temp.resolve("prompts.jsonl"),
            """
            # two of them
            {"user": "one", "maxTokens": 5, "expect": "it is random"}
            {"user": "two", "maxTokens": 5}
            """);
    try (ForkedJvm demo =
        Workers.fork(
            temp,
            Main.class.getName(),
            List.of("demo", "--model", model.toString(), "--prompts", prompts.toString()))) {
      int code = demo.awaitExit(Duration.ofSeconds(120));
      assertThat(demo.log())
          .contains("[1/2]", "[2/2]", "2 prompts in", "failed      0", "lost        0")
          .contains("right       0 of the 1 whose answer is known");
      assertThat(code).as(demo.log()).isZero();
    }
  }

  @Test
  void shouldFailWhereAPromptIsNotAnswered() throws Exception {
    Path model = RandomCheckpoint.write(temp.resolve("random"), Environment.home(), 1);
    Path prompts =
        Files.writeString(
            temp.resolve("prompts.jsonl"),
            "{\"user\": \"fine\", \"maxTokens\": 5}\n{\"user\": \""
                + RandomCheckpoint.RAISES
                + "\"}");
    try (ForkedJvm demo =
        Workers.fork(
            temp,
            Main.class.getName(),
            List.of("demo", "--model", model.toString(), "--prompts", prompts.toString()))) {
      int code = demo.awaitExit(Duration.ofSeconds(120));
      assertThat(demo.log()).contains(RandomCheckpoint.RAISED, "failed      1", "lost        0");
      assertThat(code).as(demo.log()).isEqualTo(1);
    }
  }

  @Test
  void shouldPrintTheAnswerToAPromptThatIsSent(Cluster cluster) throws Exception {
    try (Scene scene = Scene.on(cluster, Map.of());
        SyntheticGenerator generator = SyntheticGenerator.atRate("synthetic", 100);
        Worker worker = Workers.start(scene, generator)) {
      StringWriter out = new StringWriter();
      StringWriter err = new StringWriter();
      CommandLine line = Main.commandLine();
      line.setOut(new PrintWriter(out, true));
      line.setErr(new PrintWriter(err, true));
      int code =
          line.execute(
              "send",
              "--config",
              scene.settingsFile().toString(),
              "--max-tokens",
              "20",
              "--seed",
              "77",
              "hello");
      assertThat(code).as(err.toString()).isZero();
      assertThat(out.toString().strip())
          .isEqualTo(Prompts.syntheticAnswer(Prompts.user("x", "hello", 20).build()).strip());
      assertThat(err.toString()).contains("LENGTH", "20 written");
    }
  }
}
