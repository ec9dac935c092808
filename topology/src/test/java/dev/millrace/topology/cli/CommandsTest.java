package dev.millrace.topology.cli;

import static org.assertj.core.api.Assertions.assertThat;

import dev.millrace.topology.Environment;
import dev.millrace.topology.Main;
import dev.millrace.topology.local.LocalBroker;
import dev.millrace.topology.local.Ports;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;
import picocli.CommandLine;

/** What the commands print and return where they do not reach a worker. */
final class CommandsTest {
  @TempDir Path temp;

  private final StringWriter out = new StringWriter();
  private final StringWriter err = new StringWriter();

  @ParameterizedTest
  @ValueSource(strings = {"demo", "send", "worker", "topics", "version"})
  void shouldExplainEachCommand(String command) {
    assertThat(run("help", command)).isZero();
    assertThat(out.toString()).startsWith("Usage: millrace " + command);
    assertThat(run("help")).isZero();
    assertThat(out.toString()).contains("  " + command);
  }

  @Test
  void shouldSayTheVersions() {
    assertThat(run("version")).isZero();
    assertThat(out.toString()).contains("Millrace", "Kafka    4.", "Java     25");
  }

  @Test
  void shouldRefuseAWrongCommandLineWithTwo() {
    assertThat(run("worker")).isEqualTo(2);
    assertThat(err.toString()).contains("Missing required option: '--config=FILE'");
    assertThat(run("serve")).isEqualTo(2);
    assertThat(err.toString()).contains("Unmatched argument at index 0: 'serve'");
  }

  @Test
  void shouldNameTheSettingsFileThatIsMissing() {
    assertThat(run("worker", "--config", "no-such-file")).isEqualTo(4);
    assertThat(err.toString())
        .startsWith("millrace: cannot read the settings in no-such-file")
        .hasLineCount(1);
  }

  @Test
  void shouldSayWhyItCannotUseADevice() throws Exception {
    Path config =
        Files.writeString(
            temp.resolve("c"),
            "kafka.bootstrap.servers=a:1\nengine.device=cuda:9999\nmodel.path=%s\n"
                .formatted(Environment.home().resolve("src/model/checkpoint")));
    assertThat(run("worker", "--config", config.toString())).isEqualTo(4);
    assertThat(err.toString()).startsWith("millrace: engine.device is cuda:9999: ").hasLineCount(1);
  }

  @ParameterizedTest
  @ValueSource(strings = {"--workers=0", "--workers=x", "--gpus=0,0", "--gpus=-1", "--gpus="})
  void shouldRefuseWrongNumbersOfWorkers(String option) {
    assertThat(run("worker", "--config", "unread", option)).isEqualTo(2);
    assertThat(err.toString()).contains(option.substring(0, option.indexOf('=')));
  }

  @Test
  void shouldRefuseWorkersAndGpusAtOnce() {
    assertThat(run("worker", "--config", "unread", "--workers=2", "--gpus=0,1")).isEqualTo(2);
  }

  @Test
  void shouldNameTheSettingThatIsWrong() throws Exception {
    Path config = Files.writeString(temp.resolve("c"), "kafka.bootstrap.servers=a:1\ntopic=x\n");
    assertThat(run("topics", "create", "--config", config.toString())).isEqualTo(4);
    assertThat(err.toString()).startsWith("millrace: the setting 'topic' is unknown");
  }

  @Test
  void shouldSayHowToStartADemoThatCanAnswer() {
    assertThat(run("send", "hello")).isEqualTo(1);
    assertThat(err.toString()).contains("start ./millrace demo --keep").hasLineCount(1);
  }

  @Test
  void shouldNameTheBrokerThatDoesNotAnswer() throws Exception {
    String bootstrap = "127.0.0.1:" + Ports.free(1)[0];
    Path config =
        Files.writeString(
            temp.resolve("c"),
            """
            kafka.bootstrap.servers=%s
            kafka.default.api.timeout.ms=2000
            kafka.request.timeout.ms=1000
            """
                .formatted(bootstrap));
    assertThat(run("topics", "create", "--config", config.toString())).isEqualTo(1);
    assertThat(err.toString()).contains("cannot make the topic", bootstrap).hasLineCount(1);
  }

  @Test
  void shouldMakeTheTopicsThatAreMissing() throws Exception {
    try (LocalBroker broker = LocalBroker.start(temp.resolve("broker"))) {
      Path config =
          Files.writeString(
              temp.resolve("c"),
              "kafka.bootstrap.servers=" + broker.bootstrap() + "\ntopics.prompts=mine\n");
      assertThat(run("topics", "create", "--config", config.toString())).isZero();
      assertThat(out.toString()).contains("made    mine").doesNotContain("exists");
      assertThat(run("topics", "create", "--config", config.toString())).isZero();
      assertThat(out.toString()).contains("exists  mine").doesNotContain("made");
    }
  }

  private int run(String... args) {
    out.getBuffer().setLength(0);
    err.getBuffer().setLength(0);
    CommandLine line = Main.commandLine();
    line.setOut(new PrintWriter(out, true));
    line.setErr(new PrintWriter(err, true));
    return line.execute(args);
  }
}
