package dev.millrace.inference.tool;

import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/**
 * The Nemotron dialect: {@code <TOOLCALL>[{"name": "f", "arguments": {...}}, ...]</TOOLCALL>}
 * anywhere in the content, any number of times. Takes the tags that models drift to as well, and
 * what {@link CallBlock} repairs.
 */
final class NemotronToolCalls implements ToolCallParser {
  private static final List<String> NAMES =
      List.of("toolcall", "tool_call", "toolcalls", "tool_calls", "angled_tools");
  private static final List<String> OPEN = NAMES.stream().map(n -> "<" + n + ">").toList();
  static final List<String> CLOSE = NAMES.stream().map(n -> "</" + n + ">").toList();

  private final Set<String> names;
  private final StringBuilder content = new StringBuilder();
  private final List<Call> calls = new ArrayList<>();

  /** What could become an opening tag. */
  private final StringBuilder held = new StringBuilder();

  private @Nullable CallBlock block;

  /** Characters that may still be read a second time. */
  private int rereadLeft = 1 << 20;

  NemotronToolCalls(Set<String> names) {
    this.names = names;
  }

  @Override
  public Output append(String text) {
    read(text);
    return output();
  }

  @Override
  public Output finish() {
    while (block != null) {
      CallBlock ended = block;
      block = null;
      ended.finish();
      close(ended);
    }
    content.append(held);
    held.setLength(0);
    return output();
  }

  private Output output() {
    Output output = new Output(content.toString(), List.copyOf(calls));
    content.setLength(0);
    calls.clear();
    return output;
  }

  private void read(String text) {
    for (int i = 0; i < text.length(); i++) {
      char c = text.charAt(i);
      CallBlock open = block;
      if (open == null) {
        outside(c);
      } else {
        boolean over = open.feed(c);
        calls.addAll(open.takeCalls());
        if (over) {
          block = null;
          close(open);
        }
      }
    }
  }

  /** Takes what a block came to; the text behind its end is read as any other. */
  private void close(CallBlock ended) {
    calls.addAll(ended.takeCalls());
    content.append(ended.notCalls());
    String behind = ended.behind();
    rereadLeft -= behind.length();
    if (rereadLeft < 0) {
      // Openings within openings: each would have all the rest read once more.
      content.append(behind);
    } else {
      read(behind);
    }
  }

  private void outside(char c) {
    held.append(c);
    while (!held.isEmpty()) {
      String begun = held.toString().toLowerCase(Locale.ROOT);
      if (OPEN.contains(begun)) {
        block = new CallBlock(names, held.toString(), CLOSE);
        held.setLength(0);
        return;
      }
      if (OPEN.stream().anyMatch(tag -> tag.startsWith(begun))) {
        return;
      }
      content.append(held.charAt(0));
      held.deleteCharAt(0);
    }
  }
}
