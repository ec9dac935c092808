package dev.millrace.topology;

import java.util.List;
import org.apache.kafka.common.header.Header;
import org.jspecify.annotations.Nullable;

/**
 * A record to send about a prompt. Its key is the prompt's.
 *
 * @param headers ours; a dead letter carries the prompt's own before them
 * @param value null with a dead letter: the prompt's own value
 */
record Output(Sink sink, List<Header> headers, byte @Nullable [] value) {
  /** Where outputs go; the names are those of the topology's sink nodes. */
  enum Sink {
    COMPLETION("completions"),
    TOOL_CALL("tool-calls"),
    CHUNK("chunks"),
    DEAD_LETTER("dead-letters");

    private final String node;

    Sink(String node) {
      this.node = node;
    }

    String node() {
      return node;
    }

    String topic(Topics.Names names) {
      return switch (this) {
        case COMPLETION -> names.completions();
        case TOOL_CALL -> names.toolCalls();
        case CHUNK -> names.chunks();
        case DEAD_LETTER -> names.deadLetters();
      };
    }
  }

  Output {
    headers = List.copyOf(headers);
  }
}
