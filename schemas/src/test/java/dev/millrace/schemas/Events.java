package dev.millrace.schemas;

import java.time.Instant;
import java.util.List;
import java.util.Map;

/** Events with every field set, for tests. */
final class Events {
  private Events() {}

  static PromptEvent prompt() {
    return PromptEvent.newBuilder()
        .setId("p-1")
        .setModel("small")
        .setMessages(
            List.of(
                message(MessageRole.USER, "Grüße, 世界 👋"),
                PromptMessage.newBuilder(message(MessageRole.ASSISTANT, ""))
                    .setToolCalls(List.of(new PromptToolCall("c1", "add", "{\"a\": 1}")))
                    .build(),
                PromptMessage.newBuilder(message(MessageRole.TOOL, "2"))
                    .setToolCallId("c1")
                    .setName("add")
                    .build()))
        .setPromptTokens(List.of(1, 2, 128_000))
        .setTools(List.of(new PromptTool("add", "Adds.", "{\"type\": \"object\"}")))
        .setToolChoice(new PromptToolChoice(ToolChoiceMode.NAMED, "add"))
        .setResponseFormat(new PromptResponseFormat(ResponseFormatType.JSON_OBJECT, ""))
        .setSampling(
            PromptSampling.newBuilder()
                .setTemperature(0.5)
                .setSeed(-7L)
                .setMaxTokens(100)
                .setStop(List.of("\n\n"))
                .build())
        .setReasoning(false)
        .setPrefill("The")
        .setStream(true)
        .setPriority(-3)
        .setDeadline(Instant.parse("2030-01-02T03:04:05.678Z"))
        .setTenant("acme")
        .setMetadata(Map.of("order", "17"))
        .build();
  }

  static PromptMessage message(MessageRole role, String content) {
    return PromptMessage.newBuilder().setRole(role).setContent(content).build();
  }
}
