package dev.millrace.tests;

import static org.assertj.core.api.Assertions.assertThat;

import dev.millrace.schemas.PromptEvent;
import dev.millrace.schemas.PromptSampling;
import dev.millrace.topology.Environment;
import dev.millrace.topology.cli.Ledger;
import dev.millrace.topology.local.ForkedJvm;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.ExtendWith;
import org.junit.jupiter.api.io.TempDir;

/**
 * {@code kill -9} of {@code millrace worker} with the real engine at work: the answers are those of
 * a run that nobody disturbed, byte for byte.
 */
@ExtendWith(LocalCluster.Extension.class)
final class EngineKillTest {
  private static final Duration TIMEOUT = Duration.ofSeconds(120);
  private static final long SEED = 3;
  private static final int PROMPTS = 40;

  @TempDir Path temp;

  @Test
  void shouldGiveTheBytesOfAnUndisturbedRun(Cluster cluster) {
    Path shipped = Environment.home().resolve("src/model/checkpoint");
    Path model =
        Files.exists(shipped.resolve("config.json"))
            ? shipped
            : RandomCheckpoint.write(temp.resolve("random"), Environment.home(), SEED);
    Map<String, String> settings = new HashMap<>(KillTest.QUICK);
    settings.put("model.path", model.toString());
    settings.put("model.name", "m");
    settings.put("engine.max.sequences", "4");
    Random random = new Random(SEED);
    List<PromptEvent> prompts = new ArrayList<>();
    for (int i = 0; i < PROMPTS; i++) {
      // Drawn with temperature, so that any slip in a resumed sequence shows in the rest of it.
      prompts.add(
          Prompts.user("p-" + i, "What is " + (100 + i) + " + " + (300 + 7 * i) + "?", 1)
              .setSampling(
                  PromptSampling.newBuilder()
                      .setTemperature(1.0)
                      .setIgnoreEos(true)
                      .setMaxTokens(60 + random.nextInt(120))
                      .build())
              .build());
    }
    try (Scene undisturbed = Scene.on(cluster, settings);
        Scene killed = Scene.on(cluster, settings)) {
      try (ForkedJvm worker = Workers.forkMain(undisturbed)) {
        undisturbed.send(prompts);
        undisturbed.awaitSettled(TIMEOUT, worker);
      }
      killed.send(prompts);
      int kills = KillTest.killAndRestart(killed, random, () -> Workers.forkMain(killed));
      System.out.printf("seed %d: %d kills, %s%n", SEED, kills, killed.ledger());
      assertThat(kills).as("kills with prompts in flight, seed %d", SEED).isGreaterThan(1);
      assertThat(killed.ledger().contradictions()).isZero();
      assertThat(killed.ledger().deadLetters()).isEmpty();
      for (PromptEvent prompt : prompts) {
        assertThat(Prompts.completion(killed, prompt))
            .as("%s, seed %d", prompt.getId(), SEED)
            .matches(c -> Ledger.sameAnswer(c, Prompts.completion(undisturbed, prompt)));
      }
    }
  }
}
