package dev.millrace.inference.api;

import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * One turn of a conversation.
 *
 * @param content the text; empty where an assistant turn holds only tool calls
 * @param toolCalls calls that an assistant turn made
 * @param toolCallId which call a tool turn answers
 * @param name of the tool that a tool turn answers for
 */
public record Message(
    Role role,
    String content,
    List<RequestedCall> toolCalls,
    @Nullable String toolCallId,
    @Nullable String name) {

  /** Who speaks. */
  public enum Role {
    SYSTEM,
    USER,
    ASSISTANT,
    TOOL
  }

  /**
   * A call in the history.
   *
   * @param arguments JSON text, as the model wrote it
   */
  public record RequestedCall(String id, String name, String arguments) {}

  public Message {
    toolCalls = List.copyOf(toolCalls);
  }

  public static Message of(Role role, String content) {
    return new Message(role, content, List.of(), null, null);
  }
}
