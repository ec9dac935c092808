package dev.millrace.inference.pipeline;

import dev.millrace.inference.api.GenerateRequest;
import dev.millrace.inference.api.Message;
import dev.millrace.inference.api.Prompt;
import dev.millrace.inference.api.ResponseFormat;
import dev.millrace.inference.api.SamplingParams;
import dev.millrace.inference.api.Scheduling;
import dev.millrace.inference.api.Tool;
import dev.millrace.inference.api.ToolChoice;
import java.util.List;
import org.jspecify.annotations.Nullable;

/** A request, part by part. */
final class Requests {
  private Scheduling scheduling = Scheduling.ANY;
  private final long seed;
  private Prompt prompt =
      new Prompt.Chat(List.of(Message.of(Message.Role.USER, "How is the weather?")));
  private List<Tool> tools = List.of();
  private ToolChoice choice = ToolChoice.AUTO;
  private ResponseFormat format = ResponseFormat.TEXT;
  private List<String> stop = List.of();
  private int maxTokens = 1000;
  private int logprobs = -1;
  private @Nullable Boolean reasoning;
  private String prefill = "";
  private int[] resume = {};

  private Requests(long seed) {
    this.seed = seed;
  }

  static Requests seed(long seed) {
    return new Requests(seed);
  }

  Requests prompt(Prompt value) {
    prompt = value;
    return this;
  }

  Requests tools(Tool... value) {
    tools = List.of(value);
    return this;
  }

  Requests choice(ToolChoice.Mode mode, @Nullable String name) {
    choice = new ToolChoice(mode, name);
    return this;
  }

  Requests format(ResponseFormat value) {
    format = value;
    return this;
  }

  Requests stop(String... value) {
    stop = List.of(value);
    return this;
  }

  Requests maxTokens(int value) {
    maxTokens = value;
    return this;
  }

  Requests logprobs(int value) {
    logprobs = value;
    return this;
  }

  Requests reasoning(boolean value) {
    reasoning = value;
    return this;
  }

  Requests prefill(String value) {
    prefill = value;
    return this;
  }

  /** Waits at so many tokens. */
  Requests allowed(int value) {
    scheduling = Scheduling.ANY.allowed(value);
    return this;
  }

  Requests resume(int... value) {
    resume = value;
    return this;
  }

  GenerateRequest build() {
    SamplingParams sampling =
        new SamplingParams(0, 1, 0, 0, 1, 0, 0, seed, maxTokens, 0, stop, false, logprobs);
    return new GenerateRequest(
        "r" + seed,
        prompt,
        tools,
        choice,
        format,
        sampling,
        reasoning,
        prefill,
        scheduling,
        resume);
  }
}
