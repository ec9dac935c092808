package dev.millrace.tests;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;

import dev.millrace.schemas.PromptEvent;
import dev.millrace.topology.Main;
import dev.millrace.topology.SyntheticGenerator;
import dev.millrace.topology.Worker;
import dev.millrace.topology.cli.EventClient;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.stream.Stream;
import org.apache.kafka.common.header.Header;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.ExtendWith;
import picocli.CommandLine;

/** {@code millrace dead-letters} on a real topic, from the refusal to the answer. */
@ExtendWith(LocalCluster.Extension.class)
final class DeadLettersTest {
  private static final Duration TIMEOUT = Duration.ofSeconds(60);
  private static final String TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

  private final StringWriter out = new StringWriter();
  private final StringWriter err = new StringWriter();

  @Test
  void shouldAnswerWhatIsReplayedOnceAnotherWorkerServesTheModel(Cluster cluster) throws Exception {
    try (Scene scene = Scene.on(cluster, Map.of("max.prompt.bytes", "64k"));
        SyntheticGenerator generator = SyntheticGenerator.atOnce("synthetic")) {
      List<PromptEvent> wrong = new ArrayList<>();
      try (Worker worker = Workers.start(scene, generator)) {
        for (int i = 0; i < 5; i++) {
          wrong.add(Prompts.user("wrong-" + i, "question " + i, 3).setModel("other").build());
        }
        for (PromptEvent prompt : wrong) {
          scene.sendRaw(
              prompt.getId(),
              scene.client().serialize(prompt),
              Map.of("traceparent", TRACE.getBytes(UTF_8)));
        }
        scene.sendRaw("poison", new byte[] {7, 7}, Map.of());
        scene.sendRaw("large", new byte[70_000], Map.of());
        scene.awaitSettled(TIMEOUT);
      }
      String[] config = {"--config", scene.settingsFile().toString()};

      assertThat(run("list", config)).isZero();
      assertThat(lines()).hasSize(8).last().isEqualTo("7 dead letters");
      assertThat(run("list", config, "--json", "--reason", "MODEL_NOT_SERVED,BAD_RECORD")).isZero();
      assertThat(lines()).hasSize(6).allMatch(line -> line.contains("\"replayed\":false"));
      assertThat(run("list", config, "--json", "--id", "wrong-3")).isZero();
      assertThat(lines()).hasSize(1).first().asString().contains("\"id\":\"\"", "wrong-3");
      String place = place(lines().getFirst());
      assertThat(run("list", config, "--json", "--until", "1h")).isZero();
      assertThat(lines()).isEmpty();
      assertThat(run("list", config, "--json", "--since", "1h", "--limit", "2")).isZero();
      assertThat(lines()).hasSize(2);

      Path value = scene.folder().resolve("value");
      assertThat(run("show", config, place, "--value", value.toString())).isZero();
      assertThat(out.toString()).contains("question 3", "traceparent", "MODEL_NOT_SERVED");
      assertThat(Files.readAllBytes(value)).isEqualTo(scene.client().serialize(wrong.get(3)));

      assertThat(run("replay", config, "--dry-run")).as("the large one").isEqualTo(1);
      assertThat(out.toString()).contains("would replay 6, refused 1, replayed before 0");
      assertThat(err.toString()).contains("its value is not here");
      assertThat(run("replay", config, "--to", "no-such-topic", "--at", place)).isEqualTo(1);
      assertThat(err.toString()).contains("the broker has no topic no-such-topic");

      try (Worker worker = start(scene.config().with(Map.of("model.name", "other")), generator)) {
        assertThat(run("replay", config, "--reason", "MODEL_NOT_SERVED", "--limit", "2")).isZero();
        assertThat(out.toString()).contains("replayed 2, refused 0, replayed before 0");
        assertThat(run("replay", config, "--reason", "MODEL_NOT_SERVED")).isZero();
        assertThat(out.toString()).contains("replayed 3, refused 0, replayed before 2");
        assertThat(run("replay", config, "--reason", "MODEL_NOT_SERVED")).isZero();
        assertThat(out.toString()).contains("replayed 0, refused 0, replayed before 5");
        awaitCompletions(scene, 5);
        scene.readFor(Duration.ofMillis(300));
        assertThat(worker.state()).isEqualTo(Worker.State.RUNNING);
      }
      List<EventClient.Outcome.Completion> completions =
          scene.outcomes().stream()
              .filter(EventClient.Outcome.Completion.class::isInstance)
              .map(EventClient.Outcome.Completion.class::cast)
              .toList();
      assertThat(completions)
          .extracting(c -> c.event().getPromptId())
          .containsExactlyInAnyOrderElementsOf(wrong.stream().map(PromptEvent::getId).toList());
      for (EventClient.Outcome.Completion completion : completions) {
        Header trace = completion.source().headers().lastHeader("traceparent");
        assertThat(new String(Objects.requireNonNull(trace).value(), UTF_8)).isEqualTo(TRACE);
        assertThat(completion.source().headers())
            .extracting(Header::key)
            .noneMatch(name -> name.startsWith("millrace.") || name.startsWith("__streams"));
      }
      assertThat(run("list", config, "--pending", "--json")).isZero();
      assertThat(lines()).hasSize(2);
    }
  }

  private static Worker start(
      dev.millrace.topology.WorkerConfig config, SyntheticGenerator generator)
      throws InterruptedException {
    Worker worker = new Worker(config, generator);
    worker.start();
    assertThat(worker.awaitRunning(TIMEOUT)).isTrue();
    return worker;
  }

  private static void awaitCompletions(Scene scene, int count) {
    long deadline = System.nanoTime() + TIMEOUT.toNanos();
    while (System.nanoTime() < deadline
        && scene.outcomes().stream()
                .filter(EventClient.Outcome.Completion.class::isInstance)
                .count()
            < count) {
      scene.poll(Duration.ofMillis(100));
    }
  }

  private int run(String command, String[] config, String... args) {
    out.getBuffer().setLength(0);
    err.getBuffer().setLength(0);
    CommandLine line = Main.commandLine();
    line.setOut(new PrintWriter(out));
    line.setErr(new PrintWriter(err));
    return line.execute(
        Stream.of(new String[] {"dead-letters", command}, config, args)
            .flatMap(Arrays::stream)
            .toArray(String[]::new));
  }

  private List<String> lines() {
    return out.toString().lines().toList();
  }

  private static String place(String json) {
    return json.replaceAll(".*\"partition\":(\\d+),\"offset\":(\\d+),\"time\".*", "$1@$2");
  }
}
