package dev.millrace.topology.cli;

import static org.assertj.core.api.Assertions.assertThat;

import dev.millrace.topology.DeadLetters;
import dev.millrace.topology.Environment;
import dev.millrace.topology.Main;
import dev.millrace.topology.Setting;
import dev.millrace.topology.Settings;
import dev.millrace.topology.SettingsPage;
import dev.millrace.topology.WorkerConfig;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Set;
import java.util.TreeSet;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.junit.jupiter.api.Test;
import picocli.CommandLine;

/** What the pages and examples say about settings and commands is true. */
final class PagesTest {
  private final Path home = Environment.home();

  @Test
  void shouldHoldTheSettingsAsTheCodeHasThem() throws IOException {
    String page = Files.readString(home.resolve("docs/operations.md"));
    assertThat(page)
        .as("run ./millrace settings --write docs/operations.md")
        .isEqualTo(SettingsPage.update(page));
  }

  @Test
  void shouldGiveEachNumberAUnit() {
    assertThat(Settings.ALL)
        .filteredOn(s -> s.standard().matches("-?\\d+\\w*|true|false"))
        .hasSizeGreaterThan(15)
        .allSatisfy(s -> assertThat(s.unit()).as(s.name()).isNotEqualTo(Setting.Unit.TEXT));
  }

  @Test
  void shouldListEachReasonOfADeadLetter() throws IOException {
    String page = Files.readString(home.resolve("docs/operations.md"));
    for (DeadLetters.Reason reason : DeadLetters.Reason.values()) {
      assertThat(page).contains("| `%s` | %s |\n".formatted(reason, reason.doc()));
    }
  }

  @Test
  void shouldKnowEachCommandOnThePages() throws IOException {
    for (String page : List.of("README.md", "docs/operations.md")) {
      Matcher command =
          Pattern.compile(
                  "\\./millrace ([a-z-]+)(?:"
                      + " (create|topology|engine|kernels|stream|load|list|show|replay))?")
              .matcher(Files.readString(home.resolve(page)));
      int found = 0;
      while (command.find()) {
        CommandLine line = Main.commandLine().getSubcommands().get(command.group(1));
        assertThat(line).as("%s: %s", page, command.group()).isNotNull();
        if (command.group(2) != null) {
          assertThat(line.getSubcommands()).as(page).containsKey(command.group(2));
        }
        found++;
      }
      assertThat(found).as("commands on %s", page).isGreaterThan(3);
    }
  }

  /** A dashboard's metric that no page explains has been renamed, or was never there. */
  @Test
  void shouldDrawOnlyMetricsThatThePageExplains() throws IOException {
    String page = Files.readString(home.resolve("docs/operations.md"));
    Matcher metric =
        Pattern.compile("\\b((?:millrace|vllm)[_:][a-z_:]+?)(?:_bucket)?\\{")
            .matcher(Files.readString(home.resolve("deploy/grafana-dashboard.json")));
    Set<String> drawn = new TreeSet<>();
    while (metric.find()) {
      drawn.add(metric.group(1));
    }
    assertThat(drawn).hasSizeGreaterThan(20);
    assertThat(drawn)
        .allSatisfy(
            name ->
                assertThat(
                        page.contains("`" + name)
                            || page.contains(
                                "`" + name.replaceAll("^millrace_(prompts|engine)", "")))
                    .as(name)
                    .isTrue());
  }

  @Test
  void shouldAcceptTheExampleSettings() {
    WorkerConfig example = WorkerConfig.load(home.resolve("deploy/worker.properties"));
    assertThat(example.bootstrapServers()).isEqualTo("localhost:9092");
  }

  @Test
  void shouldReadTheDemosPrompts() {
    List<PromptsFile.Entry> entries = PromptsFile.read(home.resolve("deploy/demo-prompts.jsonl"));
    assertThat(entries).hasSizeGreaterThan(15).allMatch(e -> e.expected() != null);
  }
}
