package dev.millrace.tests;

import static org.assertj.core.api.Assertions.assertThat;

import dev.millrace.schemas.PromptEvent;
import dev.millrace.topology.local.ForkedJvm;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.function.Supplier;
import org.junit.jupiter.api.extension.ExtendWith;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/** {@code kill -9} of a worker with prompts in flight: the next one finishes them. */
@ExtendWith(LocalCluster.Extension.class)
final class KillTest {
  private static final Logger log = LoggerFactory.getLogger(KillTest.class);
  private static final Duration TIMEOUT = Duration.ofSeconds(90);
  private static final int PROMPTS = 120;
  private static final int KILLS = 3;

  /** So that a killed member is missed soon. */
  static final Map<String, String> QUICK =
      Map.of(
          "kafka.session.timeout.ms", "2000",
          "kafka.heartbeat.interval.ms", "400",
          "kafka.producer.transaction.timeout.ms", "3000",
          "progress.save.tokens", "16",
          "progress.save.interval", "200ms");

  @ParameterizedTest
  @CsvSource({"at_least_once, 1", "exactly_once_v2, 2"})
  void shouldLoseNothingWhenTheWorkerIsKilled(String guarantee, long seed, Cluster cluster)
      throws Exception {
    Map<String, String> settings = new HashMap<>(QUICK);
    settings.put("kafka.processing.guarantee", guarantee);
    try (Scene scene = Scene.on(cluster, settings)) {
      Random random = new Random(seed);
      List<PromptEvent> prompts = new ArrayList<>();
      for (int i = 0; i < PROMPTS; i++) {
        // Lengths differ, so that at any moment some are done and others are under way.
        prompts.add(Prompts.user("p-" + i, "question " + i, 100 + random.nextInt(900)).build());
      }
      scene.send(prompts);
      int kills = killAndRestart(scene, random, () -> Workers.forkSynthetic(scene, 80));
      log.info("seed {}, {}: {} kills, {}", seed, guarantee, kills, scene.ledger());
      System.out.printf("seed %d, %s: %d kills, %s%n", seed, guarantee, kills, scene.ledger());
      assertThat(kills).as("kills with prompts in flight, seed %d", seed).isEqualTo(KILLS);
      assertThat(scene.ledger().contradictions()).as("seed %d", seed).isZero();
      assertThat(scene.ledger().deadLetters()).as("seed %d", seed).isEmpty();
      if (guarantee.equals("exactly_once_v2")) {
        assertThat(scene.ledger().duplicates()).as("seed %d", seed).isZero();
      }
      for (PromptEvent prompt : prompts) {
        assertThat(Prompts.completion(scene, prompt).getContent())
            .as("%s, seed %d", prompt.getId(), seed)
            .isEqualTo(Prompts.syntheticAnswer(prompt));
      }
    }
  }

  /** Kills a worker whenever it has finished some prompts and has others in flight. */
  static int killAndRestart(Scene scene, Random random, Supplier<ForkedJvm> start) {
    int kills = 0;
    ForkedJvm worker = start.get();
    try {
      while (kills < KILLS) {
        int more = 5 + random.nextInt(15);
        int before = scene.ledger().completions().size();
        awaitCompletions(scene, worker, before + more);
        if (scene.ledger().settled()) {
          break;
        }
        worker.kill9();
        kills++;
        worker = start.get();
      }
      scene.awaitSettled(TIMEOUT, worker);
      scene.readFor(Duration.ofSeconds(1));
      return kills;
    } finally {
      worker.close();
    }
  }

  private static void awaitCompletions(Scene scene, ForkedJvm worker, int count) {
    long deadline = System.nanoTime() + TIMEOUT.toNanos();
    while (scene.ledger().completions().size() < count && !scene.ledger().settled()) {
      if (System.nanoTime() > deadline || !worker.isAlive()) {
        throw new AssertionError(
            "fewer than " + count + " completions: " + scene.ledger() + "\n" + worker.log());
      }
      scene.poll(Duration.ofMillis(50));
    }
  }
}
