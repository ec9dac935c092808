package dev.millrace.inference.tool;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assertions.assertTimeoutPreemptively;

import dev.millrace.inference.tool.ToolCallParser.Call;
import dev.millrace.inference.tool.ToolCallParser.Dialect;
import dev.millrace.inference.tool.ToolCallParser.Output;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.Set;
import org.junit.jupiter.api.Test;

class ToolCallParserTest {
  private static final Set<String> NAMES = Set.of("f", "get_weather");
  private static final Call F = new Call("f", "{\"a\": 1}");
  private static final Call G = new Call("get_weather", "{\"city\": \"Köln\", \"b\": {\"c\": []}}");
  private static final String JSON_F = "{\"name\": \"f\", \"arguments\": {\"a\": 1}}";
  private static final String JSON_G =
      "{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Köln\", \"b\": {\"c\": []}}}";

  @Test
  void shouldTakeCallsOutOfTheContent() {
    nemotron("<TOOLCALL>[" + JSON_F + "]</TOOLCALL>", "", F);
    nemotron("<TOOLCALL>[" + JSON_F + ", " + JSON_G + "]</TOOLCALL>", "", F, G);
    nemotron("Sure. <TOOLCALL>[" + JSON_F + "]</TOOLCALL> Done.", "Sure.  Done.", F);
    nemotron(
        "<TOOLCALL>[" + JSON_F + "]</TOOLCALL>\n<TOOLCALL>[" + JSON_G + "]</TOOLCALL>", "\n", F, G);
    nemotron("<TOOLCALL>\n[\n" + JSON_F + "\n]\n</TOOLCALL>", "", F);
    nemotron("<TOOLCALL>[]</TOOLCALL>", "<TOOLCALL>[]</TOOLCALL>");
  }

  @Test
  void shouldKeepArgumentsAsTheyAreWritten() {
    String arguments = "{\"b\":1.50,  \"a\": \"</TOOLCALL> ] } \\\" <\", \"n\": null}";
    nemotron(
        "<TOOLCALL>[{\"name\": \"f\", \"arguments\": " + arguments + "}]</TOOLCALL>",
        "",
        new Call("f", arguments));
  }

  @Test
  void shouldTakeArgumentsThatAreATextOfJson() {
    nemotron("<TOOLCALL>[{\"name\": \"f\", \"arguments\": \"{\\\"a\\\": 1}\"}]</TOOLCALL>", "", F);
    nemotron(
        "<TOOLCALL>[{\"name\": \"f\", \"arguments\": \"\"}]</TOOLCALL>", "", new Call("f", "{}"));
    nemotron(
        "<TOOLCALL>[{\"name\": \"f\", \"arguments\": null}]</TOOLCALL>", "", new Call("f", "{}"));
    nemotron("<TOOLCALL>[{\"name\": \"f\"}]</TOOLCALL>", "", new Call("f", "{}"));
    String text = "<TOOLCALL>[{\"name\": \"f\", \"arguments\": \"no json\"}]</TOOLCALL>";
    nemotron(text, text);
  }

  @Test
  void shouldTakeOtherMembersAndWrappedFunctions() {
    nemotron(
        "<TOOLCALL>[{\"id\": \"x\", \"arguments\": {\"a\": 1}, \"name\": \"f\"}]</TOOLCALL>",
        "",
        F);
    nemotron("<TOOLCALL>[{\"name\": \"f\", \"parameters\": {\"a\": 1}}]</TOOLCALL>", "", F);
    nemotron(
        "<TOOLCALL>[{\"type\": \"function\", \"function\": {\"name\": \"f\", \"arguments\":"
            + " {\"a\":1}}}]</TOOLCALL>",
        "",
        new Call("f", "{\"a\":1}"));
  }

  @Test
  void shouldRepairMissingBraces() {
    String f = JSON_F.substring(0, JSON_F.length() - 1);
    String g = JSON_G.substring(0, JSON_G.length() - 1);
    nemotron("<TOOLCALL>[" + f + "]</TOOLCALL>", "", F);
    nemotron("<TOOLCALL>[" + f + ", " + g + "]</TOOLCALL>", "", F, G);
    nemotron("<TOOLCALL>[" + f + ", " + JSON_G + "]</TOOLCALL>", "", F, G);
    nemotron("<TOOLCALL>[" + JSON_F + ", " + g + "]</TOOLCALL>", "", F, G);
    nemotron("<TOOLCALL>[" + f + ", " + JSON_G + "}]</TOOLCALL>", "", F, G);
    nemotron("<TOOLCALL>[{\"name\": \"f\", \"arguments\": {\"a\": 1]</TOOLCALL>", "", F);
    nemotron("<TOOLCALL>[{\"name\": \"f\", \"arguments\": {\"a\": 1</TOOLCALL>", "", F);
    nemotron("<TOOLCALL>[" + f + "] and so on", "and so on", F);
  }

  @Test
  void shouldTakeOtherAndUnclosedTags() {
    nemotron("<TOOL_CALL>[" + JSON_F + "]</TOOL_CALL>", "", F);
    nemotron("<toolcall>[" + JSON_F + "]</TOOL_CALL>x", "x", F);
    nemotron("<ANGLED_TOOLS>[" + JSON_F + "]</ANGLED_TOOLS>", "", F);
    nemotron("<TOOLCALL>[" + JSON_F + "]", "", F);
    nemotron("<TOOLCALL>[" + JSON_F, "", F);
    nemotron("<TOOLCALL>" + JSON_F + "</TOOLCALL>", "", F);
    nemotron("<TOOLCALL>" + JSON_F + ", " + JSON_G + "]</TOOLCALL>", "", F, G);
    nemotron("<TOOLCALL>[" + JSON_F + "</TOOLCALL>", "", F);
    nemotron("<TOOLCALL>[" + JSON_F + "]\n\nThat was it.", "That was it.", F);
    nemotron("<TOOLCALL>[" + JSON_F + "]</TOOLCAL", "", F);
  }

  @Test
  void shouldKeepACallThatIsCutOffAsItIs() {
    String cut = "{\"name\": \"g\", \"arguments\": {\"b\": 1";
    nemotron("<TOOLCALL>[" + JSON_F + ", " + cut, cut, F);
  }

  @Test
  void shouldReadOpeningsWithinOpeningsInReasonableTime() {
    String opened = "<TOOLCALL>[{\"name\":\"f\",\"arguments\":{},{".repeat(20_000);
    assertTimeoutPreemptively(
        Duration.ofSeconds(20),
        () -> {
          ToolCallParser parser = ToolCallParser.of(Dialect.NEMOTRON, Set.of("f"));
          parser.append(opened);
          parser.finish();
          ToolCallParser angles = ToolCallParser.of(Dialect.NEMOTRON, Set.of("f"));
          angles.append("<TOOLCALL>[{<" + ">".repeat(1_000_000));
          angles.finish();
        });
  }

  @Test
  void shouldNotTakeWhatIsNoCall() {
    for (String text :
        List.of(
            "plain",
            "",
            "<TOOL",
            "a < b <TOOLCALL",
            "Use <TOOLCALL> for that. " + JSON_F,
            "<TOOLCALL>not json</TOOLCALL>",
            "<TOOLCALL>[{\"name\": \"unknown\", \"arguments\": {}}]</TOOLCALL> x",
            "<TOOLCALL>[{\"name\": \"f\", \"description\": \"d\", \"parameters\": {\"type\":"
                + " \"object\"}}]</TOOLCALL>",
            "<TOOLCALL>[{\"name\": \"f\", \"parameters\": {\"type\": \"object\", \"properties\":"
                + " {}}}]</TOOLCALL>",
            "<TOOLCALL>[{\"name\": \"f\", \"description\": \"d\"}]</TOOLCALL>",
            "<TOOLCALL>[{\"name\": \"f\", \"arguments\": [1]}]</TOOLCALL>",
            "<TOOLCALL>[{\"name\": \"f\", \"arguments\": {\"a\": 12",
            "<TOOLCALL>[{\"name\": \"f\", \"arguments\": {\"a\": \"1",
            "<TOOLCALL>[{\"name\": f, \"arguments\": {}}]</TOOLCALL>",
            "<TOOLCALL>",
            JSON_F)) {
      nemotron(text, text);
    }
  }

  @Test
  void shouldKeepWhatStandsBesideACall() {
    Output output =
        all(
            Dialect.NEMOTRON,
            "<TOOLCALL>[{\"name\": \"nope\", \"arguments\": {}}, " + JSON_F + "]</TOOLCALL>");
    assertThat(output.calls()).containsExactly(F);
    assertThat(output.content()).contains("{\"name\": \"nope\", \"arguments\": {}}");
  }

  @Test
  void shouldGiveOutEachCallAsSoonAsItIsComplete() {
    ToolCallParser parser = ToolCallParser.of(Dialect.NEMOTRON, NAMES);
    assertThat(parser.append("a<TOOL")).isEqualTo(new Output("a", List.of()));
    assertThat(parser.append("CALL>[" + JSON_F)).isEqualTo(new Output("", List.of(F)));
    assertThat(parser.append(", " + JSON_G.substring(0, 30)).calls()).isEmpty();
    assertThat(parser.append(JSON_G.substring(30)).calls()).containsExactly(G);
    assertThat(parser.append("]</TOOLCALL>b")).isEqualTo(new Output("b", List.of()));
  }

  @Test
  void shouldTakeNoCallsWithoutTools() {
    String text = "<TOOLCALL>[" + JSON_F + "]</TOOLCALL>";
    ToolCallParser parser = ToolCallParser.of(Dialect.NEMOTRON, Set.of());
    assertThat(parser.append(text)).isEqualTo(new Output(text, List.of()));
  }

  @Test
  void shouldTakeCallsOfTheLlamaDialect() {
    String f = "{\"name\": \"f\", \"parameters\": {\"a\": 1}}";
    llama(f, "", F);
    llama(" \n" + f + "; " + JSON_G, "", F, G);
    llama("<|python_tag|>" + f, "", F);
    llama("[" + f + ", " + f + "]", "", F, F);
    llama(f + " and more", "and more", F);
    llama("{\"name\": \"f\", \"parameters\": {\"a\": 1}", "", F);
    for (String text :
        List.of(
            "It is " + f,
            "{\"answer\": 4}",
            "{\"answer\": 4} " + f,
            "[1, 2]",
            "{\"name\": \"unknown\", \"parameters\": {}}",
            "<|python_tag|>print(1)",
            "<|python",
            " ",
            "{\"name\": \"f\", \"param")) {
      llama(text, text);
    }
  }

  @Test
  void shouldReadWhatThePrefillsBegin() {
    for (Dialect dialect : Dialect.values()) {
      assertThat(all(dialect, dialect.beginning("f") + " {\"a\": 1}}]").calls()).containsExactly(F);
      assertThat(all(dialect, dialect.beginning() + "f\", \"arguments\": {\"a\": 1}}]").calls())
          .containsExactly(F);
    }
  }

  @Test
  void shouldLoseNothingOfRandomAnswers() {
    Random random = new Random(4);
    String[] parts = {
      "<TOOLCALL>",
      "</TOOLCALL>",
      "[",
      "]",
      "{",
      "}",
      ",",
      "\"",
      "\\",
      " ",
      "x",
      JSON_F,
      JSON_G,
      "\"name\": \"f\"",
      "<"
    };
    for (int round = 0; round < 3000; round++) {
      StringBuilder text = new StringBuilder();
      for (int i = random.nextInt(10); i >= 0; i--) {
        text.append(parts[random.nextInt(parts.length)]);
      }
      Output output = all(Dialect.NEMOTRON, text.toString());
      int xs = (int) text.chars().filter(c -> c == 'x').count();
      int in = (int) output.content().chars().filter(c -> c == 'x').count();
      assertThat(in).as("seed 4, round %s: %s -> %s", round, text, output).isEqualTo(xs);
      if (output.calls().isEmpty()) {
        assertThat(output.content()).as("seed 4, round %s", round).isEqualTo(text.toString());
      }
    }
  }

  @Test
  void shouldReadLongAnswersInReasonableTime() {
    String many = ("<TOOLCALL>[" + JSON_F + "]</TOOLCALL>").repeat(2000);
    assertThat(all(Dialect.NEMOTRON, many).calls()).hasSize(2000);
    String open = "<TOOLCALL>[" + "{\"a\":".repeat(50_000);
    assertThat(all(Dialect.NEMOTRON, open).content()).isEqualTo(open);
    String tags = "<TOOLCALL>".repeat(5_000);
    assertThat(all(Dialect.NEMOTRON, tags).content()).isEqualTo(tags);
  }

  private static void nemotron(String text, String content, Call... calls) {
    assertOutput(Dialect.NEMOTRON, text, content, calls);
  }

  private static void llama(String text, String content, Call... calls) {
    assertOutput(Dialect.LLAMA, text, content, calls);
  }

  /** However the text is cut, the same comes out. */
  private static void assertOutput(Dialect dialect, String text, String content, Call... calls) {
    assertThat(all(dialect, text)).as(text).isEqualTo(new Output(content, List.of(calls)));
    Random random = new Random(2);
    for (int round = 0; round < 20; round++) {
      ToolCallParser parser = ToolCallParser.of(dialect, NAMES);
      StringBuilder said = new StringBuilder();
      List<Call> called = new ArrayList<>();
      for (int at = 0; at < text.length(); ) {
        int length = Math.min(text.length() - at, random.nextInt(6));
        Output output = parser.append(text.substring(at, at + length));
        said.append(output.content());
        called.addAll(output.calls());
        at += length;
      }
      Output output = parser.finish();
      called.addAll(output.calls());
      assertThat(new Output(said + output.content(), called))
          .as("seed 2, round %s: %s", round, text)
          .isEqualTo(new Output(content, List.of(calls)));
    }
  }

  private static Output all(Dialect dialect, String text) {
    ToolCallParser parser = ToolCallParser.of(dialect, NAMES);
    Output some = parser.append(text);
    Output end = parser.finish();
    List<Call> calls = new ArrayList<>(some.calls());
    calls.addAll(end.calls());
    return new Output(some.content() + end.content(), calls);
  }
}
