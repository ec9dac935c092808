package dev.millrace.inference.api;

import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * One prompt for a {@link Generator}.
 *
 * @param id for logs and errors; the generator does not require it to be unique
 * @param reasoning on or off by the model's own switch; null leaves what the messages say
 * @param prefill text that the assistant's turn begins with; part of the content that comes back
 * @param scheduling its priority, and whose it is
 * @param resume tokens that an earlier attempt generated already: the output continues after them
 *     and is the same as without the interruption; they count against maxTokens and stand in the
 *     result
 */
public record GenerateRequest(
    String id,
    Prompt prompt,
    List<Tool> tools,
    ToolChoice toolChoice,
    ResponseFormat responseFormat,
    SamplingParams sampling,
    @Nullable Boolean reasoning,
    String prefill,
    Scheduling scheduling,
    int[] resume) {
  public GenerateRequest {
    tools = List.copyOf(tools);
  }

  /** The same, with another turn among others, to go on after these tokens. */
  public GenerateRequest resumed(Scheduling newScheduling, int[] tokens) {
    return new GenerateRequest(
        id,
        prompt,
        tools,
        toolChoice,
        responseFormat,
        sampling,
        reasoning,
        prefill,
        newScheduling,
        tokens);
  }
}
