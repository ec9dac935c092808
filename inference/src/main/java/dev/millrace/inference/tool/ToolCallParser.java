package dev.millrace.inference.tool;

import java.util.List;
import java.util.Set;

/**
 * Finds tool calls in an answer's content as it comes. Nothing is lost: what turns out not to be a
 * call of one of the request's tools is content, its tags included. What comes out does not depend
 * on how the text is cut into pieces. For one answer and one thread.
 */
public interface ToolCallParser {

  /** How a model writes calls. */
  enum Dialect {
    /** {@code <TOOLCALL>[{"name": ..., "arguments": {...}}]</TOOLCALL>} */
    NEMOTRON,
    /** {@code {"name": ..., "parameters": {...}}} as the whole answer. */
    LLAMA;

    /** The dialect that a chat template teaches its model. */
    public static Dialect of(String template) {
      return template.contains("TOOLCALL") || !template.contains("parameters") ? NEMOTRON : LLAMA;
    }

    /** What an answer begins with that calls some tool. */
    public String beginning() {
      return this == NEMOTRON ? "<TOOLCALL>[{\"name\": \"" : "{\"name\": \"";
    }

    /** What an answer begins with that calls this tool. */
    public String beginning(String tool) {
      return beginning() + tool + (this == NEMOTRON ? "\", \"arguments\":" : "\", \"parameters\":");
    }
  }

  /**
   * A complete call.
   *
   * @param arguments JSON text of an object
   */
  record Call(String name, String arguments) {}

  /** What is certain now: content, and calls, both in the order of the answer. */
  record Output(String content, List<Call> calls) {}

  /** Takes the next text. */
  Output append(String text);

  /** Ends the answer. */
  Output finish();

  /**
   * A parser for the dialect.
   *
   * @param names of the request's tools; without any there are no calls, and all is content
   */
  static ToolCallParser of(Dialect dialect, Set<String> names) {
    if (names.isEmpty()) {
      return new NoToolCalls();
    }
    return dialect == Dialect.NEMOTRON ? new NemotronToolCalls(names) : new LlamaToolCalls(names);
  }
}
