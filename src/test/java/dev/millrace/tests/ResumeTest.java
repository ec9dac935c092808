package dev.millrace.tests;

import static org.assertj.core.api.Assertions.assertThat;

import dev.millrace.inference.api.GenerateEvent;
import dev.millrace.inference.api.GenerateEvent.Delta;
import dev.millrace.inference.api.GenerateEvent.Done;
import dev.millrace.inference.api.GenerateRequest;
import dev.millrace.inference.api.Generator;
import dev.millrace.inference.api.Message;
import dev.millrace.inference.api.Prompt;
import dev.millrace.inference.api.ResponseFormat;
import dev.millrace.inference.api.SamplingParams;
import dev.millrace.inference.api.Scheduling;
import dev.millrace.inference.api.ToolChoice;
import dev.millrace.inference.device.DeviceOptions;
import dev.millrace.inference.engine.EngineConfig;
import dev.millrace.inference.pipeline.LlmGenerator;
import dev.millrace.topology.Environment;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** An answer that is continued after any of its tokens is the answer of an undisturbed run. */
final class ResumeTest {
  private static final long SEED = 11;
  private static final int TOKENS = 60;

  @TempDir Path temp;

  private record Answer(int[] tokens, Done done) {}

  @Test
  void shouldGiveTheSameBytesFromEveryToken() throws Exception {
    Path model = RandomCheckpoint.write(temp.resolve("model"), Environment.home(), SEED);
    try (LlmGenerator generator =
        LlmGenerator.open(
            model,
            EngineConfig.defaults().withMaxSequences(16),
            DeviceOptions.of("cpu"),
            LlmGenerator.Options.of("m"))) {
      Answer whole = submit(generator, new int[0], Scheduling.ANY).join();
      assertThat(whole.tokens()).as("seed %d", SEED).hasSize(TOKENS);
      // All at once, so that they stand in batches with one another; some of them alone for a
      // while.
      List<CompletableFuture<Answer>> resumed = new ArrayList<>();
      for (int known = 1; known <= TOKENS; known++) {
        resumed.add(
            submit(
                generator,
                Arrays.copyOf(whole.tokens(), known),
                known % 10 == 0 ? Scheduling.ANY.alone(8) : Scheduling.ANY));
      }
      for (int known = 1; known <= TOKENS; known++) {
        Answer answer = resumed.get(known - 1).join();
        assertThat(answer.tokens())
            .as("after %d tokens, seed %d", known, SEED)
            .isEqualTo(Arrays.copyOfRange(whole.tokens(), known, TOKENS));
        assertThat(answer.done().content()).isEqualTo(whole.done().content());
        assertThat(answer.done().finish()).isEqualTo(whole.done().finish());
        assertThat(answer.done().usage().completion()).isEqualTo(TOKENS);
      }
    }
  }

  private static CompletableFuture<Answer> submit(
      Generator generator, int[] resume, Scheduling scheduling) {
    // Drawn with temperature: any slip shows in the rest.
    SamplingParams sampling =
        new SamplingParams(1, 1, 0, 0, 1.1f, 0, 0, SEED, TOKENS, 0, List.of(), true, -1);
    GenerateRequest request =
        new GenerateRequest(
            "r" + resume.length,
            new Prompt.Chat(List.of(Message.of(Message.Role.USER, "Tell me a story."))),
            List.of(),
            ToolChoice.AUTO,
            ResponseFormat.TEXT,
            sampling,
            null,
            "",
            scheduling,
            resume);
    CompletableFuture<Answer> answer = new CompletableFuture<>();
    List<Integer> tokens = new ArrayList<>();
    var unused =
        generator.submit(
            request,
            event -> {
              switch (event) {
                case Delta delta -> Arrays.stream(delta.tokens()).forEach(tokens::add);
                case Done done ->
                    answer.complete(
                        new Answer(tokens.stream().mapToInt(Integer::intValue).toArray(), done));
                case GenerateEvent.Failed failed ->
                    answer.completeExceptionally(new AssertionError(failed.message()));
                case GenerateEvent.ToolCall call -> {
                  // A random model makes none that matter.
                }
              }
            });
    return answer;
  }
}
