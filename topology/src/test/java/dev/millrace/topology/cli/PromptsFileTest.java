package dev.millrace.topology.cli;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.millrace.schemas.CompletionEvent;
import dev.millrace.schemas.CompletionToolCall;
import dev.millrace.schemas.MessageRole;
import java.nio.file.Path;
import java.util.List;
import java.util.Objects;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

final class PromptsFileTest {
  @Test
  void shouldReadPromptsOverSeveralLinesWithComments() {
    List<PromptsFile.Entry> entries =
        PromptsFile.parse(
            "f",
            """
            # the first
            {"user": "What is 1 + 1?", "thinking": true, "expect": "2"} // at the end
            {"toolset": "home", "tools": [
              {"type": "function", "function": {"name": "set_lamp",
                "parameters": {"z": 1, "a": 2}}}]}

            {"id": "x", "system": "be brief", "user": "lamp", "tools": "home",
              "maxTokens": 9, "temperature": 0.5, "seed": 7,
              "expectCalls": [{"name": "set_lamp", "arguments": {}}]}
            """);
    assertThat(entries).extracting(e -> e.prompt().getId()).containsExactly("prompt-1", "x");
    assertThat(entries.get(0).prompt().getReasoning()).isTrue();
    var second = entries.get(1).prompt();
    assertThat(second.getMessages())
        .extracting(m -> m.getRole())
        .containsExactly(MessageRole.SYSTEM, MessageRole.USER);
    assertThat(second.getTools()).hasSize(1);
    assertThat(second.getTools().get(0).getParameters()).isEqualTo("{\"z\":1,\"a\":2}");
    assertThat(second.getSampling().getMaxTokens()).isEqualTo(9);
    assertThat(second.getSampling().getTemperature()).isEqualTo(0.5);
    assertThat(second.getSampling().getSeed()).isEqualTo(7L);
    assertThat(second.getReasoning()).isNull();
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      textBlock =
          """
          {"user": "a", "thinkin": true}          | f:1: there is no field "thinkin"
          {"user": "a"}\\n{"user": 5}             | f:2: "user" must be a text
          {"user": "a", "messages": []}           | f:1: a prompt has "user" or "messages"
          {"id": "a"}                             | f:1: a prompt has "user" or "messages"
          {"user": "a", "tools": "none"}          | f:1: no toolset none stands above
          {"user": "a"}\\n\\n{"user": "b"         | f:3:
          [1]                                     | f:1: a prompt is a JSON object
          # nothing                               | f holds no prompt
          {"id": "a", "user": "b"}{"id": "a", "user": "b"} | f:1: the id a stands in the file twice
          {"user": "a", "expectCalls": [{"name": "b"}]} | f:1: a call's "arguments" are an object
          {"messages": [{"role": "robot", "content": ""}]} | f:1: "role" is robot
          """)
  void shouldSayWhereAFileIsWrong(String text, String message) {
    assertThatThrownBy(() -> PromptsFile.parse("f", text.replace("\\n", "\n")))
        .isInstanceOf(PromptsFile.BadFileException.class)
        .hasMessageStartingWith(message);
  }

  @Test
  void shouldSayThatTheFileIsMissing() {
    assertThatThrownBy(() -> PromptsFile.read(Path.of("no-such-file")))
        .isInstanceOf(PromptsFile.BadFileException.class)
        .hasMessageContaining("cannot read the prompts file no-such-file");
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      quoteCharacter = '`',
      textBlock =
          """
          42          | ` 42\n`        | true
          42          | 43             | false
          {"a": "b"}  | {"a":"b"}      | true
          {"a": 1}    | {"a": 1.0}     | true
          {"a": "b"}  | {"a": "c"}     | false
          {"a": "b"}  | {"a": "b"} {}  | false
          42          | 42.0           | false
          """)
  void shouldCompareTextsAndJson(String expected, String answer, boolean right) {
    assertThat(new Expected(expected, null).matches(completion(answer))).isEqualTo(right);
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      quoteCharacter = '`',
      textBlock =
          """
          f | {"b": 2, "a": 1}    | true
          f | {"a": 1.0, "b": 2}  | true
          g | {"a": 1, "b": 2}    | false
          f | {"a": 1}            | false
          f | {"a": 1, "b": 2     | false
          """)
  void shouldCompareCalls(String name, String arguments, boolean right) {
    Expected expected =
        Objects.requireNonNull(
            PromptsFile.parse(
                    "f",
                    """
                    {"user": "", "expectCalls": [{"name": "f", "arguments": {"a": 1, "b": 2}}]}
                    """)
                .getFirst()
                .expected());
    CompletionEvent made =
        CompletionEvent.newBuilder()
            .setToolCalls(
                List.of(
                    CompletionToolCall.newBuilder().setName(name).setArguments(arguments).build()))
            .build();
    assertThat(expected.matches(made)).isEqualTo(right);
    assertThat(expected.matches(completion("no call"))).isFalse();
  }

  private static CompletionEvent completion(String content) {
    return CompletionEvent.newBuilder().setContent(content).build();
  }
}
