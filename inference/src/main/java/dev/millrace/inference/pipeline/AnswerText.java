package dev.millrace.inference.pipeline;

import dev.millrace.inference.api.GenerateEvent;
import dev.millrace.inference.token.Detokenizer;
import dev.millrace.inference.tool.ReasoningParser;
import dev.millrace.inference.tool.ToolCallParser;
import dev.millrace.inference.tool.ToolSchemas;
import java.util.ArrayList;
import java.util.List;

/**
 * The text of one answer as its tokens come: bytes to characters, stop strings, reasoning, tool
 * calls. What it holds after some tokens depends on these tokens alone, so that a resumed answer
 * goes on exactly where it was. For one answer and one thread at a time.
 */
final class AnswerText {
  private final Detokenizer detokenizer;
  private final ReasoningParser reasoningParser;
  private final ToolCallParser callParser;
  private final ToolSchemas schemas;
  private final StringBuilder content = new StringBuilder();
  private final StringBuilder reasoning = new StringBuilder();
  private final List<GenerateEvent.ToolCall> calls = new ArrayList<>();
  private int tokens;
  private int reasoningTokens;

  AnswerText(
      Detokenizer detokenizer,
      ReasoningParser reasoningParser,
      ToolCallParser callParser,
      ToolSchemas schemas) {
    this.detokenizer = detokenizer;
    this.reasoningParser = reasoningParser;
    this.callParser = callParser;
    this.schemas = schemas;
  }

  /** Takes text that the answer begins with, which no stop string ends. */
  void begin(String text) {
    take(text);
  }

  /** Takes the next token; false if a stop string is complete and the answer over. */
  boolean append(int token) {
    boolean inside = reasoningParser.inside();
    take(detokenizer.append(token));
    tokens++;
    if (inside || reasoningParser.inside()) {
      // Reasoning comes first, so all tokens up to here were part of it.
      reasoningTokens = tokens;
    }
    return detokenizer.stoppedBy() == null;
  }

  /** Takes what was held back: no more tokens come. */
  void finish() {
    take(detokenizer.finish());
    ReasoningParser.Split split = reasoningParser.finish();
    take(split);
    take(callParser.finish());
  }

  CharSequence content() {
    return content;
  }

  CharSequence reasoning() {
    return reasoning;
  }

  /** The complete calls so far. */
  List<GenerateEvent.ToolCall> calls() {
    return calls;
  }

  int tokens() {
    return tokens;
  }

  int reasoningTokens() {
    return reasoningTokens;
  }

  private void take(String text) {
    take(reasoningParser.append(text));
  }

  private void take(ReasoningParser.Split split) {
    reasoning.append(split.reasoning());
    take(callParser.append(split.content()));
  }

  private void take(ToolCallParser.Output output) {
    content.append(output.content());
    for (ToolCallParser.Call call : output.calls()) {
      calls.add(
          new GenerateEvent.ToolCall(
              calls.size(),
              call.name(),
              call.arguments(),
              schemas.problem(call.name(), call.arguments())));
    }
  }
}
