package dev.millrace.inference.tool;

import java.util.List;

/** For requests without tools: all is content. */
final class NoToolCalls implements ToolCallParser {
  @Override
  public Output append(String text) {
    return new Output(text, List.of());
  }

  @Override
  public Output finish() {
    return new Output("", List.of());
  }
}
