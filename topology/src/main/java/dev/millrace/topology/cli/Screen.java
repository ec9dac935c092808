package dev.millrace.topology.cli;

import dev.millrace.schemas.CompletionEvent;
import dev.millrace.schemas.CompletionToolCall;
import java.io.PrintWriter;
import java.util.Locale;

/** Prints events for people: one prompt, one paragraph. */
final class Screen {
  private static final int WIDTH = 100;

  private final PrintWriter out;

  Screen(PrintWriter out) {
    this.out = out;
  }

  void line(String format, Object... values) {
    out.printf(Locale.ROOT, format + "%n", values);
    out.flush();
  }

  /** A prompt's first line of the paragraph: its text on one line, cut in the middle. */
  static String shorten(String text, int width) {
    String flat = text.strip().replaceAll("\\s+", " ");
    if (flat.length() <= width) {
      return flat;
    }
    int half = (width - 5) / 2;
    return flat.substring(0, half) + " ... " + flat.substring(flat.length() - half);
  }

  /** What the model thought, what it said, and what it called. */
  void answer(CompletionEvent completion) {
    if (!completion.getReasoning().isBlank()) {
      line("      thinks  %s", shorten(completion.getReasoning(), WIDTH));
    }
    if (!completion.getContent().isBlank()) {
      line("      says    %s", shorten(completion.getContent(), WIDTH));
    }
    for (CompletionToolCall call : completion.getToolCalls()) {
      line("      calls   %s(%s)%s", call.getName(), call.getArguments(), problem(call));
    }
  }

  private static String problem(CompletionToolCall call) {
    return call.getValid() ? "" : "  [does not fit the tool: " + call.getProblem() + "]";
  }
}
