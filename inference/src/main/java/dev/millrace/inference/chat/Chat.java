package dev.millrace.inference.chat;

import dev.millrace.inference.api.Message;
import dev.millrace.inference.api.Tool;
import java.util.ArrayList;
import java.util.List;
import java.util.regex.Pattern;
import org.jspecify.annotations.Nullable;

/**
 * A conversation as a template gets it.
 *
 * @param tools those that the model is shown
 */
public record Chat(List<Message> messages, List<Tool> tools) {
  /** The switch where it stands already, at the very beginning of the system turn. */
  private static final Pattern SWITCH = Pattern.compile("^\\s*detailed thinking (?:on|off)\\b\\s*");

  public Chat {
    messages = List.copyOf(messages);
    tools = List.copyOf(tools);
  }

  /**
   * The conversation with the family's switch for reasoning in front: a system turn that begins
   * with {@code detailed thinking on} or {@code off}.
   *
   * @param reasoning null leaves the conversation as it is
   */
  public Chat withReasoning(@Nullable Boolean reasoning) {
    if (reasoning == null) {
      return this;
    }
    String text = "detailed thinking " + (reasoning ? "on" : "off");
    List<Message> switched = new ArrayList<>(messages);
    if (!messages.isEmpty() && messages.getFirst().role() == Message.Role.SYSTEM) {
      String rest = SWITCH.matcher(messages.getFirst().content()).replaceFirst("");
      switched.set(
          0, Message.of(Message.Role.SYSTEM, rest.isEmpty() ? text : text + "\n\n" + rest));
    } else {
      switched.addFirst(Message.of(Message.Role.SYSTEM, text));
    }
    return new Chat(switched, tools);
  }
}
