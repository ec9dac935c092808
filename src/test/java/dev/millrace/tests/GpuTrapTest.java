package dev.millrace.tests;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import dev.millrace.kernels.Device;
import dev.millrace.schemas.PromptEvent;
import dev.millrace.schemas.PromptSampling;
import dev.millrace.topology.Environment;
import dev.millrace.topology.cli.Ledger;
import dev.millrace.topology.local.ForkedJvm;
import dev.millrace.topology.local.LocalRegistry;
import dev.millrace.topology.local.LocalStack;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import org.junit.jupiter.api.Test;

/**
 * A kernel that traps below a whole worker: the process ends and forwards nothing of what the GPU
 * did after that; Kafka gives its prompts to the next one, whose answers are those of a run that
 * nobody disturbed, byte for byte.
 */
final class GpuTrapTest {
  private static final Duration TIMEOUT = Duration.ofSeconds(60);
  private static final long SEED = 5;
  private static final int PROMPTS = 120;

  /** Tokens that the engine generates before the trap: some of the answers. */
  private static final int TOKENS = 6000;

  /** Broker and registry of this process alone. */
  private record Own(LocalStack stack, MemoryRegistry memory) implements Cluster {
    static Own start() {
      MemoryRegistry memory = MemoryRegistry.start();
      try {
        return new Own(LocalStack.startWithoutRegistry(), memory);
      } catch (RuntimeException | Error e) {
        memory.close();
        throw e;
      }
    }

    @Override
    public String bootstrap() {
      return stack.broker().bootstrap();
    }

    @Override
    public LocalRegistry registry() {
      return stack.registry();
    }

    @Override
    public String registryUrl() {
      return memory.url();
    }

    @Override
    public Path folder() {
      return stack.folder();
    }

    @Override
    public void close() {
      memory.close();
      stack.close();
    }
  }

  @Test
  void shouldLeaveItsPromptsToTheNextWorker() {
    assumeTrue(Device.count() > 0, "this machine has no GPU with a CUDA driver");
    Map<String, String> settings = new HashMap<>(KillTest.QUICK);
    settings.put("model.path", Environment.home().resolve("src/model/checkpoint").toString());
    settings.put("model.name", "m");
    settings.put("engine.device", "cuda:0");
    settings.put("engine.batch.invariant", "true");
    settings.put("engine.max.sequences", "8");
    settings.put("progress.save.tokens", "4");
    List<PromptEvent> prompts = prompts();
    try (Own cluster = Own.start();
        Scene undisturbed = Scene.on(cluster, settings);
        Scene broken = Scene.on(cluster, settings)) {
      try (ForkedJvm worker = Workers.forkMain(undisturbed)) {
        undisturbed.send(prompts);
        undisturbed.awaitSettled(TIMEOUT, worker);
      }
      broken.send(prompts);
      int forwarded = runIntoTheTrap(broken);
      try (ForkedJvm worker = Workers.forkMain(broken)) {
        broken.awaitSettled(TIMEOUT, worker);
        broken.readFor(Duration.ofSeconds(1));
      }
      System.out.printf("%d forwarded before the trap, %s%n", forwarded, broken.ledger());
      assertThat(broken.ledger().contradictions()).isZero();
      assertThat(broken.ledger().deadLetters()).isEmpty();
      for (PromptEvent prompt : prompts) {
        assertThat(Prompts.completion(broken, prompt))
            .as("%s, seed %d", prompt.getId(), SEED)
            .matches(c -> Ledger.sameAnswer(c, Prompts.completion(undisturbed, prompt)));
      }
    }
  }

  /** Drawn with temperature, so that any slip in a resumed sequence shows in the rest of it. */
  private static List<PromptEvent> prompts() {
    Random random = new Random(SEED);
    List<PromptEvent> prompts = new ArrayList<>();
    for (int i = 0; i < PROMPTS; i++) {
      prompts.add(
          Prompts.user("p-" + i, "What is " + (100 + i) + " + " + (300 + 7 * i) + "?", 1)
              .setSampling(
                  PromptSampling.newBuilder()
                      .setTemperature(1.0)
                      .setIgnoreEos(true)
                      .setMaxTokens(20 + random.nextInt(160))
                      .build())
              .build());
    }
    return prompts;
  }

  /** How many prompts had their outcome when the worker had ended. */
  private static int runIntoTheTrap(Scene scene) {
    try (ForkedJvm worker =
        Workers.fork(
            scene.folder(),
            TrappedWorker.class.getName(),
            List.of(scene.settingsFile().toString(), Integer.toString(TOKENS)))) {
      int exit = worker.awaitExit(TIMEOUT);
      String log = worker.log();
      assertThat(exit).as(log).isEqualTo(1);
      assertThat(log)
          .contains(TrappedWorker.TRAP)
          .containsPattern("CUDA_ERROR_ILLEGAL_ADDRESS")
          .contains("the worker failed; its prompts are resumed by the next one");
    }
    scene.readFor(Duration.ofSeconds(2));
    int forwarded = scene.ledger().completions().size();
    assertThat(forwarded).isBetween(1, PROMPTS - 1);
    assertThat(scene.ledger().deadLetters()).isEmpty();
    return forwarded;
  }
}
