package dev.millrace.tests;

import static org.assertj.core.api.Assertions.assertThat;

import dev.millrace.schemas.CompletionEvent;
import dev.millrace.schemas.PromptEvent;
import dev.millrace.topology.cli.EventClient;
import dev.millrace.topology.local.ForkedJvm;
import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.extension.ExtendWith;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/**
 * The largest prompts through every topic and store, in a heap of 384 MiB: one of 16 MB while its
 * worker is killed, and one that is as large as the setting allows.
 */
@ExtendWith(LocalCluster.Extension.class)
final class LargePromptTest {
  private static final Duration TIMEOUT = Duration.ofSeconds(60);
  private static final String HEAP = "-Xmx384m";
  private static final int LARGE = 16_000_000;

  /** Tokens a second: slow until the kill, which must find the prompt in flight. */
  private static final double SLOW = 4;

  private static final double FAST = 1_000;

  @ParameterizedTest
  @ValueSource(strings = {"at_least_once", "exactly_once_v2"})
  void shouldSurviveAKillAndThenTakeTheLargest(String guarantee, Cluster cluster) {
    Map<String, String> settings = new HashMap<>(KillTest.QUICK);
    settings.put("kafka.processing.guarantee", guarantee);
    settings.put("topics.partitions", "1");
    try (Scene scene = Scene.on(cluster, settings)) {
      PromptEvent large = Prompts.user("large", "x".repeat(LARGE), 150).setStream(true).build();
      PromptEvent small = Prompts.user("small", "question", 150).build();
      ForkedJvm worker = Workers.forkSynthetic(scene, SLOW, HEAP);
      try {
        scene.send(List.of(large, small));
        awaitChunk(scene, worker);
        assertThat(scene.ledger().completions()).as("in flight at the kill").isEmpty();
        worker.kill9();
        worker = Workers.forkSynthetic(scene, FAST, HEAP);
        scene.awaitSettled(TIMEOUT, worker);
        CompletionEvent answer = Prompts.completion(scene, large);
        assertThat(answer.getContent()).isEqualTo(Prompts.syntheticAnswer(large));
        assertThat(answer.getAttempt()).as("it went on, and did not begin").isGreaterThan(1);
        assertThat(Prompts.completion(scene, small).getContent())
            .isEqualTo(Prompts.syntheticAnswer(small));

        PromptEvent largest = largest(scene);
        scene.send(List.of(largest));
        scene.awaitSettled(TIMEOUT, worker);
        assertThat(Prompts.completion(scene, largest).getContent())
            .isEqualTo(Prompts.syntheticAnswer(largest));
        assertThat(scene.ledger().deadLetters()).isEmpty();
        assertThat(scene.ledger().contradictions()).isZero();
      } finally {
        worker.close();
      }
    }
  }

  /** One whose record has exactly max.prompt.bytes. */
  private static PromptEvent largest(Scene scene) {
    String id = "largest";
    int most = scene.config().maxPromptBytes();
    int about = most - 1_000;
    int over = scene.client().serialize(of(id, about)).length + id.length() - about;
    PromptEvent largest = of(id, most - over);
    assertThat(scene.client().serialize(largest).length + id.length()).isEqualTo(most);
    return largest;
  }

  private static PromptEvent of(String id, int characters) {
    return Prompts.user(id, "x".repeat(characters), 3).build();
  }

  private static void awaitChunk(Scene scene, ForkedJvm worker) {
    long deadline = System.nanoTime() + TIMEOUT.toNanos();
    while (scene.outcomes().stream().noneMatch(EventClient.Outcome.Chunk.class::isInstance)) {
      if (System.nanoTime() > deadline || !worker.isAlive()) {
        throw new AssertionError("no chunk: " + scene.ledger() + "\n" + worker.log());
      }
      scene.poll(Duration.ofMillis(50));
    }
  }
}
