package dev.millrace.inference.tool;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.Random;
import org.junit.jupiter.api.Test;

class ReasoningParserTest {

  @Test
  void shouldSplitReasoningFromContent() {
    assertSplit("<think>\nso 1 + 1\n</think>\n\nIt is 2.", "so 1 + 1", "It is 2.");
    assertSplit("  \n<think>a</think>b", "a", "b");
    assertSplit("<think></think>b ", "", "b ");
    assertSplit("<think>a < b </thin <</think>c", "a < b </thin <", "c");
    assertSplit("<think>a  b\n\nc</think> d\n", "a  b\n\nc", "d\n");
  }

  @Test
  void shouldTakeUnclosedReasoningForReasoning() {
    assertSplit("<think>\nso 1 + 1 ", "so 1 + 1", "");
    assertSplit("<think>a </th", "a </th", "");
    assertSplit("<think>", "", "");
  }

  @Test
  void shouldLeaveAnswersWithoutReasoningAsTheyAre() {
    assertSplit("  It is 2.\n", "", "  It is 2.\n");
    assertSplit("a <think>b</think>", "", "a <think>b</think>");
    assertSplit("<thin", "", "<thin");
    assertSplit(" <thinking>a</thinking>", "", " <thinking>a</thinking>");
    assertSplit("", "", "");
    assertSplit(" \n", "", " \n");
  }

  @Test
  void shouldBeginInsideWhereThePromptOpenedTheReasoning() {
    ReasoningParser parser = new ReasoningParser(true);
    assertThat(parser.inside()).isTrue();
    assertThat(parser.append("\na</think>b")).isEqualTo(new ReasoningParser.Split("a", "b"));
    assertThat(parser.inside()).isFalse();
  }

  @Test
  void shouldGiveOutTextAsSoonAsItIsCertain() {
    ReasoningParser parser = new ReasoningParser(false);
    assertThat(parser.append("<thi")).isEqualTo(new ReasoningParser.Split("", ""));
    assertThat(parser.append("nk>ab ")).isEqualTo(new ReasoningParser.Split("ab", ""));
    assertThat(parser.append("c</")).isEqualTo(new ReasoningParser.Split(" c", ""));
    assertThat(parser.append("think> d")).isEqualTo(new ReasoningParser.Split("", "d"));
  }

  /** However it is cut, the same comes out. */
  private static void assertSplit(String text, String reasoning, String content) {
    Random random = new Random(3);
    for (int round = 0; round < 50; round++) {
      ReasoningParser parser = new ReasoningParser(false);
      StringBuilder reasoned = new StringBuilder();
      StringBuilder said = new StringBuilder();
      for (int at = 0; at < text.length(); ) {
        int length = Math.min(text.length() - at, round == 0 ? text.length() : random.nextInt(5));
        ReasoningParser.Split split = parser.append(text.substring(at, at + length));
        reasoned.append(split.reasoning());
        said.append(split.content());
        at += length;
      }
      ReasoningParser.Split split = parser.finish();
      assertThat(reasoned + split.reasoning()).as("seed 3, round %s", round).isEqualTo(reasoning);
      assertThat(said + split.content()).as("seed 3, round %s", round).isEqualTo(content);
    }
  }
}
