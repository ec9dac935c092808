package dev.millrace.tests;

import dev.millrace.inference.api.GenerateRequest;
import dev.millrace.inference.api.Message;
import dev.millrace.inference.api.Prompt;
import dev.millrace.inference.api.ResponseFormat;
import dev.millrace.inference.api.SamplingParams;
import dev.millrace.inference.api.Scheduling;
import dev.millrace.inference.api.ToolChoice;
import dev.millrace.schemas.CompletionEvent;
import dev.millrace.schemas.MessageRole;
import dev.millrace.schemas.PromptEvent;
import dev.millrace.schemas.PromptMessage;
import dev.millrace.schemas.PromptSampling;
import dev.millrace.topology.SyntheticGenerator;
import java.util.List;
import java.util.Objects;
import java.util.stream.IntStream;

/** Prompts for tests, and their right answers. */
final class Prompts {
  private static final long SEED = 77;

  private Prompts() {}

  /** A user's turn, answered with at most {@code maxTokens} tokens. */
  static PromptEvent.Builder user(String id, String text, int maxTokens) {
    return PromptEvent.newBuilder()
        .setId(id)
        .setMessages(
            List.of(PromptMessage.newBuilder().setRole(MessageRole.USER).setContent(text).build()))
        .setSampling(PromptSampling.newBuilder().setMaxTokens(maxTokens).setSeed(SEED).build());
  }

  /** {@code PREFIX-0}, {@code PREFIX-1} and so on, each with a text of its own. */
  static List<PromptEvent> many(String prefix, int count, int maxTokens) {
    return IntStream.range(0, count)
        .mapToObj(i -> user(prefix + "-" + i, "question " + i, maxTokens).build())
        .toList();
  }

  /** What the synthetic generator says to a prompt of {@link #user}. */
  static String syntheticAnswer(PromptEvent prompt) {
    SamplingParams greedy = SamplingParams.greedy(prompt.getSampling().getMaxTokens());
    return SyntheticGenerator.answer(
        new GenerateRequest(
            prompt.getId(),
            new Prompt.Chat(
                List.of(
                    Message.of(Message.Role.USER, prompt.getMessages().getFirst().getContent()))),
            List.of(),
            ToolChoice.AUTO,
            ResponseFormat.TEXT,
            new SamplingParams(
                0, 1, 0, 0, 1, 0, 0, SEED, greedy.maxTokens(), 0, List.of(), false, -1),
            null,
            "",
            Scheduling.ANY,
            new int[0]));
  }

  /** The completion that a prompt got. */
  static CompletionEvent completion(Scene scene, PromptEvent prompt) {
    return Objects.requireNonNull(
        scene.ledger().completions().get(prompt.getId()),
        () -> "no completion of " + prompt.getId() + ": " + scene.ledger());
  }
}
