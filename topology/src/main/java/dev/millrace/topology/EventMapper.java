package dev.millrace.topology;

import dev.millrace.inference.api.GenerateEvent;
import dev.millrace.inference.api.GenerateRequest;
import dev.millrace.inference.api.InvalidRequestException;
import dev.millrace.inference.api.Message;
import dev.millrace.inference.api.Message.RequestedCall;
import dev.millrace.inference.api.Prompt;
import dev.millrace.inference.api.ResponseFormat;
import dev.millrace.inference.api.SamplingParams;
import dev.millrace.inference.api.Scheduling;
import dev.millrace.inference.api.TokenLogprob;
import dev.millrace.inference.api.Tool;
import dev.millrace.inference.api.ToolChoice;
import dev.millrace.schemas.ChunkEvent;
import dev.millrace.schemas.CompletionEvent;
import dev.millrace.schemas.CompletionFinish;
import dev.millrace.schemas.CompletionLogprob;
import dev.millrace.schemas.CompletionTimes;
import dev.millrace.schemas.CompletionToolCall;
import dev.millrace.schemas.CompletionTopLogprob;
import dev.millrace.schemas.CompletionUsage;
import dev.millrace.schemas.PromptEvent;
import dev.millrace.schemas.PromptMessage;
import dev.millrace.schemas.PromptResponseFormat;
import dev.millrace.schemas.PromptSampling;
import dev.millrace.schemas.PromptTool;
import dev.millrace.schemas.PromptToolCall;
import dev.millrace.schemas.PromptToolChoice;
import dev.millrace.schemas.Source;
import dev.millrace.schemas.ToolCallEvent;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * Between the events on Kafka and the requests and events of the generator. Holds no state: one
 * serves all tasks.
 */
final class EventMapper {
  /** Longest id of a prompt, in characters: it stands in every event about it. */
  static final int LONGEST_ID = 1024;

  private static final int CALL_ID_BYTES = 12;

  private final String model;
  private final SamplingDefaults defaults;

  /** What stands in for sampling values that a prompt leaves open. */
  record SamplingDefaults(float temperature, float topP, int topK, int maxTokens) {}

  /**
   * A prompt event that the generator can be asked to answer.
   *
   * @param hash of the id
   * @param deadline milliseconds since 1970, {@link Long#MAX_VALUE}: none
   */
  record Accepted(
      String id,
      SeenIds.Hash hash,
      GenerateRequest request,
      boolean stream,
      long deadline,
      Map<String, String> metadata) {

    /**
     * The request, to continue after the tokens generated so far.
     *
     * @param alone how many tokens it is to generate with nobody else at work
     * @param allowed how many it may come to for now
     */
    GenerateRequest resumed(int[] tokens, int alone, int allowed) {
      return request.resumed(request.scheduling().alone(alone).allowed(allowed), tokens);
    }
  }

  EventMapper(String model, SamplingDefaults defaults) {
    this.model = model;
    this.defaults = defaults;
  }

  String model() {
    return model;
  }

  /** The prompt's id: its own, or else its record's as a CloudEvent, or else where it was read. */
  static String idOf(PromptEvent event, PromptRecord record) {
    if (!event.getId().isEmpty()) {
      return event.getId();
    }
    String cloudEvent = CloudEvents.id(record);
    return cloudEvent.isEmpty()
        ? record.topic() + "-" + record.partition() + "-" + record.offset()
        : cloudEvent;
  }

  /**
   * What a prompt event asks for.
   *
   * @throws InvalidRequestException if it can never be answered; says what is wrong
   */
  Accepted accept(PromptEvent event, PromptRecord record) {
    String id = idOf(event, record);
    if (id.length() > LONGEST_ID) {
      throw new InvalidRequestException(
          "id has " + id.length() + " characters, at most " + LONGEST_ID + " are allowed");
    }
    if (event.getTenant().length() > LONGEST_ID) {
      throw new InvalidRequestException(
          "tenant has %d characters, at most %d are allowed"
              .formatted(event.getTenant().length(), LONGEST_ID));
    }
    SeenIds.Hash hash = SeenIds.Hash.of(id);
    List<Tool> tools = new ArrayList<>();
    for (PromptTool tool : event.getTools()) {
      if (tool.getName().isBlank()) {
        throw new InvalidRequestException("tools[" + tools.size() + "] has no name");
      }
      tools.add(new Tool(tool.getName(), tool.getDescription(), tool.getParameters()));
    }
    GenerateRequest request =
        new GenerateRequest(
            id,
            prompt(event),
            tools,
            toolChoice(event.getToolChoice(), tools),
            responseFormat(event.getResponseFormat()),
            sampling(event.getSampling(), hash),
            event.getReasoning(),
            event.getPrefill(),
            Scheduling.of(event.getPriority(), event.getTenant()),
            new int[0]);
    return new Accepted(
        id,
        hash,
        request,
        event.getStream(),
        event.getDeadline() == null ? Long.MAX_VALUE : event.getDeadline().toEpochMilli(),
        CloudEvents.metadata(record, event.getMetadata()));
  }

  private static Prompt prompt(PromptEvent event) {
    int given =
        (event.getMessages().isEmpty() ? 0 : 1)
            + (event.getPrompt() == null ? 0 : 1)
            + (event.getPromptTokens() == null ? 0 : 1);
    if (given != 1) {
      throw new InvalidRequestException(
          given == 0
              ? "nothing to answer: give messages, prompt or promptTokens"
              : "give only one of messages, prompt and promptTokens");
    }
    if (event.getPrompt() != null) {
      return new Prompt.Text(event.getPrompt());
    }
    if (event.getPromptTokens() != null) {
      if (event.getPromptTokens().isEmpty()) {
        throw new InvalidRequestException("promptTokens is empty");
      }
      return new Prompt.Tokens(
          event.getPromptTokens().stream().mapToInt(Integer::intValue).toArray());
    }
    List<Message> messages = new ArrayList<>();
    for (PromptMessage message : event.getMessages()) {
      messages.add(message(message, messages.size()));
    }
    return new Prompt.Chat(messages);
  }

  private static Message message(PromptMessage message, int index) {
    Message.Role role =
        switch (message.getRole()) {
          case SYSTEM -> Message.Role.SYSTEM;
          case USER -> Message.Role.USER;
          case ASSISTANT -> Message.Role.ASSISTANT;
          case TOOL -> Message.Role.TOOL;
          case UNKNOWN ->
              throw new InvalidRequestException(
                  "messages["
                      + index
                      + "] has no role that this worker knows: it must be SYSTEM, USER, ASSISTANT"
                      + " or TOOL");
        };
    List<RequestedCall> calls = new ArrayList<>();
    for (PromptToolCall call : message.getToolCalls()) {
      calls.add(new RequestedCall(call.getId(), call.getName(), call.getArguments()));
    }
    return new Message(
        role, message.getContent(), calls, message.getToolCallId(), message.getName());
  }

  private static ToolChoice toolChoice(PromptToolChoice choice, List<Tool> tools) {
    return switch (choice.getMode()) {
      case AUTO -> ToolChoice.AUTO;
      case NONE -> new ToolChoice(ToolChoice.Mode.NONE, null);
      case REQUIRED -> {
        if (tools.isEmpty()) {
          throw new InvalidRequestException("toolChoice is REQUIRED, but there are no tools");
        }
        yield new ToolChoice(ToolChoice.Mode.REQUIRED, null);
      }
      case NAMED -> {
        String name = choice.getName();
        if (name == null || tools.stream().noneMatch(tool -> tool.name().equals(name))) {
          throw new InvalidRequestException(
              "toolChoice names the tool '" + name + "', which is not among tools");
        }
        yield new ToolChoice(ToolChoice.Mode.NAMED, name);
      }
      case UNKNOWN ->
          throw new InvalidRequestException(
              "toolChoice.mode is none that this worker knows: it must be AUTO, NONE, REQUIRED or"
                  + " NAMED");
    };
  }

  private static ResponseFormat responseFormat(PromptResponseFormat format) {
    return switch (format.getType()) {
      case TEXT -> ResponseFormat.TEXT;
      case JSON_OBJECT -> new ResponseFormat(ResponseFormat.Kind.JSON_OBJECT, "");
      case JSON_SCHEMA -> {
        if (format.getSchema$().isBlank()) {
          throw new InvalidRequestException("responseFormat is JSON_SCHEMA, but schema is empty");
        }
        yield new ResponseFormat(ResponseFormat.Kind.JSON_SCHEMA, format.getSchema$());
      }
      case UNKNOWN ->
          throw new InvalidRequestException(
              "responseFormat.type is none that this worker knows: it must be TEXT, JSON_OBJECT or"
                  + " JSON_SCHEMA");
    };
  }

  private SamplingParams sampling(PromptSampling s, SeenIds.Hash id) {
    int maxTokens = s.getMaxTokens() == null ? defaults.maxTokens() : s.getMaxTokens();
    return new SamplingParams(
        or(s.getTemperature(), defaults.temperature()),
        or(s.getTopP(), defaults.topP()),
        s.getTopK() == null ? defaults.topK() : s.getTopK(),
        or(s.getMinP(), 0),
        or(s.getRepetitionPenalty(), 1),
        or(s.getPresencePenalty(), 0),
        or(s.getFrequencyPenalty(), 0),
        s.getSeed() == null ? seedOf(id) : s.getSeed(),
        maxTokens,
        s.getMinTokens() == null ? 0 : s.getMinTokens(),
        s.getStop(),
        s.getIgnoreEos(),
        s.getLogprobs() == null ? -1 : s.getLogprobs());
  }

  private static float or(@Nullable Double given, float standard) {
    return given == null ? standard : given.floatValue();
  }

  /**
   * The seed of a prompt that gives none: the first 53 bits of the SHA-256 of its id. A seed comes
   * back in the completion, and clients in JavaScript refuse a record with a larger number.
   */
  static long seedOf(SeenIds.Hash id) {
    return id.high() >>> 11;
  }

  /** The id of a tool call: the same on every attempt. */
  static String callId(String promptId, int index) {
    byte[] digest =
        SeenIds.sha256().digest((promptId + '\0' + index).getBytes(StandardCharsets.UTF_8));
    return "call_" + HexFormat.of().formatHex(digest, 0, CALL_ID_BYTES);
  }

  /** The answer to a prompt. */
  CompletionEvent completion(
      InFlightPrompt prompt, GenerateEvent.Done done, CompletionFinish finish) {
    Accepted accepted = prompt.accepted();
    List<CompletionToolCall> calls = new ArrayList<>(done.toolCalls().size());
    for (GenerateEvent.ToolCall call : done.toolCalls()) {
      calls.add(
          new CompletionToolCall(
              callId(accepted.id(), call.index()),
              call.index(),
              call.name(),
              call.arguments(),
              call.problem() == null,
              call.problem()));
    }
    GenerateEvent.Usage usage = done.usage();
    GenerateEvent.Timings times = done.timings();
    return new CompletionEvent(
        accepted.id(),
        prompt.attempt,
        finish,
        done.content(),
        done.reasoning(),
        calls,
        new CompletionUsage(
            usage.prompt(),
            usage.cached(),
            usage.completion(),
            usage.reasoning(),
            usage.prompt() + usage.completion()),
        new CompletionTimes(
            millis(times.queued()), millis(times.firstToken()), millis(times.total())),
        accepted.request().sampling().seed(),
        model,
        source(prompt.record),
        accepted.metadata(),
        accepted.request().sampling().logprobs() < 0 ? null : logprobs(done.logprobs()));
  }

  static CompletionFinish finish(GenerateEvent.Done done) {
    return switch (done.finish()) {
      case STOP -> CompletionFinish.STOP;
      case LENGTH -> CompletionFinish.LENGTH;
      case TOOL_CALLS -> CompletionFinish.TOOL_CALLS;
      case CANCELLED -> CompletionFinish.CANCELLED;
    };
  }

  private static List<CompletionLogprob> logprobs(List<TokenLogprob> logprobs) {
    List<CompletionLogprob> out = new ArrayList<>(logprobs.size());
    for (TokenLogprob logprob : logprobs) {
      List<CompletionTopLogprob> top = new ArrayList<>(logprob.topTokens().length);
      for (int i = 0; i < logprob.topTokens().length; i++) {
        top.add(new CompletionTopLogprob(logprob.topTokens()[i], logprob.topLogprobs()[i]));
      }
      out.add(new CompletionLogprob(logprob.token(), logprob.logprob(), top));
    }
    return out;
  }

  ToolCallEvent toolCall(InFlightPrompt prompt, GenerateEvent.ToolCall call) {
    Accepted accepted = prompt.accepted();
    return new ToolCallEvent(
        callId(accepted.id(), call.index()),
        accepted.id(),
        prompt.attempt,
        call.index(),
        call.name(),
        call.arguments(),
        call.problem() == null,
        call.problem(),
        model,
        source(prompt.record),
        accepted.metadata());
  }

  /** What the current attempt wrote since the last chunk. */
  static ChunkEvent chunk(InFlightPrompt prompt, boolean last) {
    return new ChunkEvent(
        prompt.accepted().id(),
        prompt.attempt,
        prompt.chunkSequence,
        prompt.chunkContent.toString(),
        prompt.chunkReasoning.toString(),
        last,
        prompt.accepted().metadata());
  }

  private static Source source(PromptRecord record) {
    return new Source(record.topic(), record.partition(), record.offset(), record.timestamp());
  }

  private static long millis(long nanos) {
    return nanos / 1_000_000;
  }
}
