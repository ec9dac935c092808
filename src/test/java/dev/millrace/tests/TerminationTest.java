package dev.millrace.tests;

import static org.assertj.core.api.Assertions.assertThat;

import dev.millrace.schemas.PromptEvent;
import dev.millrace.topology.local.ForkedJvm;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.ExtendWith;

/** SIGTERM with prompts in flight. */
@ExtendWith(LocalCluster.Extension.class)
final class TerminationTest {
  private static final Duration TIMEOUT = Duration.ofSeconds(60);

  @Test
  void shouldFinishWhatWasBegunWithinTheGraceTime(Cluster cluster) {
    try (Scene scene = Scene.on(cluster, Map.of("drain.grace", "30s"));
        ForkedJvm worker = Workers.forkSynthetic(scene, 100)) {
      scene.send(Prompts.many("short", 1, 10));
      scene.awaitSettled(TIMEOUT, worker);
      scene.send(Prompts.many("long", 20, 300));
      scene.readFor(Duration.ofSeconds(1));
      assertThat(scene.ledger().open()).as("prompts in flight").hasSize(20);
      worker.terminate();
      assertThat(worker.awaitExit(TIMEOUT)).as("exit code\n%s", worker.log()).isZero();
      scene.awaitSettled(Duration.ofSeconds(2));
      assertThat(scene.ledger().toString())
          .isEqualTo(
              "21 sent, 21 completions, 0 dead letters, 0 lost, 0 duplicates, 0 contradictions");
    }
  }

  @Test
  void shouldLeaveTheRestToTheNextWorkerWhenTheGraceTimeIsOver(Cluster cluster) {
    try (Scene scene = Scene.on(cluster, Map.of("drain.grace", "1s"))) {
      List<PromptEvent> prompts = Prompts.many("long", 20, 800);
      try (ForkedJvm worker = Workers.forkSynthetic(scene, 100)) {
        scene.send(Prompts.many("short", 1, 10));
        scene.awaitSettled(TIMEOUT, worker);
        scene.send(prompts);
        scene.readFor(Duration.ofSeconds(2));
        assertThat(scene.ledger().open()).as("prompts in flight").hasSize(20);
        worker.terminate();
        assertThat(worker.awaitExit(TIMEOUT)).as("exit code\n%s", worker.log()).isEqualTo(3);
      }
      try (ForkedJvm next = Workers.forkSynthetic(scene, 1000)) {
        scene.awaitSettled(TIMEOUT, next);
      }
      assertThat(scene.ledger().deadLetters()).isEmpty();
      assertThat(scene.ledger().contradictions()).isZero();
      for (PromptEvent prompt : prompts) {
        assertThat(Prompts.completion(scene, prompt).getContent())
            .isEqualTo(Prompts.syntheticAnswer(prompt));
      }
    }
  }
}
