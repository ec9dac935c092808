package dev.millrace.tests;

import static org.assertj.core.api.Assertions.assertThat;

import dev.millrace.schemas.PromptEvent;
import dev.millrace.topology.SyntheticGenerator;
import dev.millrace.topology.Worker;
import dev.millrace.topology.WorkerConfig;
import java.time.Duration;
import java.util.Map;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.ExtendWith;

/** A task that moves in good order: nothing is sent twice, and nobody is suspected of a crash. */
@ExtendWith(LocalCluster.Extension.class)
final class HandOverTest {
  private static final Duration TIMEOUT = Duration.ofSeconds(90);
  private static final int PROMPTS = 300;

  @Test
  void shouldRepeatNothingWhenAnotherWorkerJoins(Cluster cluster) throws Exception {
    // Seldom, so that at any moment many answers are sent and not known to be durable.
    Map<String, String> settings = Map.of("kafka.commit.interval.ms", "2000");
    try (Scene scene = Scene.on(cluster, settings);
        SyntheticGenerator first = SyntheticGenerator.atRate("synthetic", 60);
        SyntheticGenerator second = SyntheticGenerator.atRate("synthetic", 60);
        Worker worker = Workers.start(scene, first)) {
      var prompts =
          IntStream.range(0, PROMPTS)
              .mapToObj(i -> Prompts.user("p-" + i, "question " + i, 30 + 2 * i).build())
              .toList();
      scene.send(prompts);
      while (scene.ledger().completions().size() < 20) {
        scene.poll(Duration.ofMillis(50));
      }
      WorkerConfig config =
          scene.config().with(Map.of("kafka.state.dir", scene.folder().resolve("2").toString()));
      try (Worker joining = new Worker(config, second)) {
        joining.start();
        long deadline = System.nanoTime() + TIMEOUT.toNanos();
        while (joining.running() == 0) {
          assertThat(System.nanoTime()).as("it gets no task").isLessThan(deadline);
          scene.poll(Duration.ofMillis(50));
        }
        scene.awaitSettled(TIMEOUT);
        scene.readFor(Duration.ofSeconds(3));
        assertThat(worker.state()).isEqualTo(Worker.State.RUNNING);
        assertThat(joining.state()).isEqualTo(Worker.State.RUNNING);
      }
      assertThat(scene.ledger().toString())
          .startsWith(
              PROMPTS + " sent, " + PROMPTS + " completions, 0 dead letters, 0 lost, 0 duplicates");
      for (PromptEvent prompt : prompts) {
        assertThat(Prompts.completion(scene, prompt).getContent())
            .isEqualTo(Prompts.syntheticAnswer(prompt));
      }
    }
  }
}
