package dev.millrace.inference.tool;

import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/**
 * The Llama 3.1 dialect: an answer that begins with {@code {"name": "f", "parameters": {...}}},
 * behind {@code <|python_tag|>} or not, is a call; more may follow with {@code ;} or {@code ,}
 * between. Any other answer is content, JSON of another kind too.
 */
final class LlamaToolCalls implements ToolCallParser {
  private static final String TAG = "<|python_tag|>";

  /** White space that may stand before a call. */
  private static final int MOST_BEFORE = 200;

  private final Set<String> names;
  private final StringBuilder begun = new StringBuilder();
  private @Nullable CallBlock block;
  private boolean decided;

  LlamaToolCalls(Set<String> names) {
    this.names = names;
  }

  @Override
  public Output append(String text) {
    StringBuilder content = new StringBuilder();
    List<Call> calls = new ArrayList<>();
    for (int i = 0; i < text.length(); i++) {
      take(text.charAt(i), content, calls);
    }
    return new Output(content.toString(), calls);
  }

  @Override
  public Output finish() {
    StringBuilder content = new StringBuilder();
    List<Call> calls = new ArrayList<>();
    CallBlock open = block;
    if (open != null) {
      block = null;
      open.finish();
      close(open, content, calls);
    } else if (!decided) {
      content.append(begun);
    }
    decided = true;
    return new Output(content.toString(), calls);
  }

  private void take(char c, StringBuilder content, List<Call> calls) {
    CallBlock open = block;
    if (open != null) {
      boolean over = open.feed(c);
      calls.addAll(open.takeCalls());
      if (over) {
        block = null;
        close(open, content, calls);
      }
      return;
    }
    if (decided) {
      content.append(c);
      return;
    }
    String start = begun.toString().stripLeading();
    boolean tagged = start.startsWith(TAG);
    String rest = tagged ? start.substring(TAG.length()).stripLeading() : start;
    if (rest.isEmpty() && (c == '{' || c == '[')) {
      decided = true;
      block = new CallBlock(names, begun.toString(), List.of());
      block.feed(c);
      return;
    }
    begun.append(c);
    boolean undecided =
        begun.length() < MOST_BEFORE
            && (tagged
                ? rest.isEmpty() && Character.isWhitespace(c)
                : TAG.startsWith(begun.toString().stripLeading()));
    if (!undecided) {
      decided = true;
      content.append(begun);
    }
  }

  private static void close(CallBlock ended, StringBuilder content, List<Call> calls) {
    calls.addAll(ended.takeCalls());
    content.append(ended.notCalls()).append(ended.behind());
  }
}
