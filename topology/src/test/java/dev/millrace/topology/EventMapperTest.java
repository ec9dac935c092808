package dev.millrace.topology;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.millrace.inference.api.GenerateRequest;
import dev.millrace.inference.api.InvalidRequestException;
import dev.millrace.inference.api.Message;
import dev.millrace.inference.api.Prompt;
import dev.millrace.inference.api.ResponseFormat;
import dev.millrace.inference.api.Tool;
import dev.millrace.inference.api.ToolChoice;
import dev.millrace.schemas.MessageRole;
import dev.millrace.schemas.PromptEvent;
import dev.millrace.schemas.PromptMessage;
import dev.millrace.schemas.PromptResponseFormat;
import dev.millrace.schemas.PromptSampling;
import dev.millrace.schemas.PromptTool;
import dev.millrace.schemas.PromptToolCall;
import dev.millrace.schemas.PromptToolChoice;
import dev.millrace.schemas.ResponseFormatType;
import dev.millrace.schemas.ToolChoiceMode;
import java.time.Instant;
import java.util.List;
import org.junit.jupiter.api.Test;

class EventMapperTest {
  private static final PromptRecord RECORD =
      new PromptRecord("t", 3, 42, 0, 0, new byte[0], List.of(), new byte[0]);
  private final EventMapper mapper =
      new EventMapper("m", new EventMapper.SamplingDefaults(0.25f, 0.5f, 40, 77));

  private GenerateRequest request(PromptEvent.Builder event) {
    return mapper.accept(event.build(), RECORD).request();
  }

  private void assertRefused(PromptEvent.Builder event, String... texts) {
    assertThatThrownBy(() -> request(event))
        .isInstanceOf(InvalidRequestException.class)
        .satisfies(e -> assertThat(e.getMessage()).contains(texts));
  }

  private static PromptMessage.Builder message(MessageRole role, String content) {
    return PromptMessage.newBuilder().setRole(role).setContent(content);
  }

  private static PromptToolChoice choice(ToolChoiceMode mode, String name) {
    return PromptToolChoice.newBuilder().setMode(mode).setName(name).build();
  }

  private static PromptTool tool(String name) {
    return PromptTool.newBuilder().setName(name).setParameters("{}").build();
  }

  @Test
  void shouldMapAConversationWithToolsAndTheirResults() {
    GenerateRequest request =
        request(
            PromptEvent.newBuilder()
                .setId("p")
                .setMessages(
                    List.of(
                        message(MessageRole.SYSTEM, "be brief").build(),
                        message(MessageRole.ASSISTANT, "")
                            .setToolCalls(
                                List.of(
                                    PromptToolCall.newBuilder()
                                        .setId("c1")
                                        .setName("add")
                                        .setArguments("{\"a\":1}")
                                        .build()))
                            .build(),
                        message(MessageRole.TOOL, "3").setToolCallId("c1").setName("add").build()))
                .setTools(List.of(tool("add")))
                .setReasoning(true)
                .setPrefill("So")
                .setPriority(-5));
    assertThat(request.prompt())
        .isEqualTo(
            new Prompt.Chat(
                List.of(
                    Message.of(Message.Role.SYSTEM, "be brief"),
                    new Message(
                        Message.Role.ASSISTANT,
                        "",
                        List.of(new Message.RequestedCall("c1", "add", "{\"a\":1}")),
                        null,
                        null),
                    new Message(Message.Role.TOOL, "3", List.of(), "c1", "add"))));
    assertThat(request.tools()).containsExactly(new Tool("add", "", "{}"));
    assertThat(request.reasoning()).isTrue();
    assertThat(request.prefill()).isEqualTo("So");
    assertThat(request.scheduling().priority()).isEqualTo(-5);
    assertThat(request.toolChoice()).isEqualTo(ToolChoice.AUTO);
  }

  @Test
  void shouldFillInWhatAPromptLeavesOpen() {
    GenerateRequest request = request(Harness.prompt("p"));
    assertThat(request.sampling().temperature()).isEqualTo(0.25f);
    assertThat(request.sampling().topP()).isEqualTo(0.5f);
    assertThat(request.sampling().topK()).isEqualTo(40);
    assertThat(request.sampling().maxTokens()).isEqualTo(77);
    assertThat(request.sampling().logprobs()).isEqualTo(-1);
    assertThat(request.sampling().seed()).isEqualTo(EventMapper.seedOf(SeenIds.Hash.of("p")));
    assertThat(request.reasoning()).isNull();
  }

  @Test
  void shouldTakeThePromptsOwnSampling() {
    GenerateRequest request =
        request(
            Harness.prompt("p")
                .setSampling(
                    PromptSampling.newBuilder()
                        .setTemperature(0.0)
                        .setTopK(0)
                        .setTopP(1.0)
                        .setMinP(0.125)
                        .setSeed(9L)
                        .setMaxTokens(5)
                        .setMinTokens(2)
                        .setStop(List.of("end"))
                        .setIgnoreEos(true)
                        .setLogprobs(3)
                        .build()));
    assertThat(request.sampling().temperature()).isZero();
    assertThat(request.sampling().topK()).isZero();
    assertThat(request.sampling().minP()).isEqualTo(0.125f);
    assertThat(request.sampling().seed()).isEqualTo(9);
    assertThat(request.sampling().maxTokens()).isEqualTo(5);
    assertThat(request.sampling().minTokens()).isEqualTo(2);
    assertThat(request.sampling().stop()).containsExactly("end");
    assertThat(request.sampling().ignoreEos()).isTrue();
    assertThat(request.sampling().logprobs()).isEqualTo(3);
  }

  @Test
  void shouldMapTextTokensAndDeadline() {
    PromptEvent.Builder event = PromptEvent.newBuilder().setId("p");
    assertThat(request(event.setPrompt("raw")).prompt()).isEqualTo(new Prompt.Text("raw"));
    event.setPrompt(null).setPromptTokens(List.of(1, 2)).setDeadline(Instant.ofEpochMilli(99));
    assertThat(((Prompt.Tokens) request(event).prompt()).ids()).containsExactly(1, 2);
    assertThat(mapper.accept(event.build(), RECORD).deadline()).isEqualTo(99);
  }

  @Test
  void shouldNameAPromptWithoutAnIdAfterItsRecord() {
    assertThat(request(Harness.prompt("")).id()).isEqualTo("t-3-42");
  }

  @Test
  void shouldRefuseWhatCanNeverBeAnswered() {
    assertRefused(PromptEvent.newBuilder(), "messages, prompt or promptTokens");
    assertRefused(Harness.prompt("p").setPrompt("too"), "only one");
    assertRefused(PromptEvent.newBuilder().setPromptTokens(List.of()), "promptTokens is empty");
    assertRefused(
        PromptEvent.newBuilder().setMessages(List.of(message(MessageRole.UNKNOWN, "x").build())),
        "messages[0]",
        "role");
    assertRefused(Harness.prompt("p").setTools(List.of(tool(" "))), "tools[0]");
    assertRefused(
        Harness.prompt("p").setToolChoice(choice(ToolChoiceMode.REQUIRED, "x")), "no tools");
    assertRefused(
        Harness.prompt("p")
            .setTools(List.of(tool("add")))
            .setToolChoice(choice(ToolChoiceMode.NAMED, "mul")),
        "'mul'");
    assertRefused(
        Harness.prompt("p").setToolChoice(choice(ToolChoiceMode.UNKNOWN, "x")), "toolChoice");
    assertRefused(
        Harness.prompt("p")
            .setResponseFormat(
                PromptResponseFormat.newBuilder().setType(ResponseFormatType.JSON_SCHEMA).build()),
        "schema is empty");
    assertRefused(
        Harness.prompt("p").setSampling(PromptSampling.newBuilder().setTemperature(1e300).build()),
        "temperature");
    assertRefused(Harness.prompt("x".repeat(1025)), "1025");
  }

  @Test
  void shouldMapToolChoiceAndResponseFormat() {
    GenerateRequest request =
        request(
            Harness.prompt("p")
                .setTools(List.of(tool("add")))
                .setToolChoice(choice(ToolChoiceMode.NAMED, "add"))
                .setResponseFormat(
                    PromptResponseFormat.newBuilder()
                        .setType(ResponseFormatType.JSON_SCHEMA)
                        .setSchema$("{}")
                        .build()));
    assertThat(request.toolChoice()).isEqualTo(new ToolChoice(ToolChoice.Mode.NAMED, "add"));
    assertThat(request.responseFormat())
        .isEqualTo(new ResponseFormat(ResponseFormat.Kind.JSON_SCHEMA, "{}"));
  }

  @Test
  void shouldGiveEqualCallIdsOnEveryAttempt() {
    assertThat(EventMapper.callId("p", 1)).isEqualTo(EventMapper.callId("p", 1));
    assertThat(EventMapper.callId("p", 1))
        .startsWith("call_")
        .isNotEqualTo(EventMapper.callId("p", 2))
        .isNotEqualTo(EventMapper.callId("p1", 1));
  }
}
