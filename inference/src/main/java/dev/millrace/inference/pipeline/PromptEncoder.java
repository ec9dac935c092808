package dev.millrace.inference.pipeline;

import dev.millrace.inference.api.GenerateEvent.Failure;
import dev.millrace.inference.api.GenerateRequest;
import dev.millrace.inference.api.InvalidRequestException;
import dev.millrace.inference.api.Prompt;
import dev.millrace.inference.api.ResponseFormat;
import dev.millrace.inference.api.Tool;
import dev.millrace.inference.api.ToolChoice;
import dev.millrace.inference.chat.Chat;
import dev.millrace.inference.chat.ChatTemplate;
import dev.millrace.inference.engine.Engine;
import dev.millrace.inference.token.SpecialMarks;
import dev.millrace.inference.tool.ToolSchemaCompiler;
import dev.millrace.inference.tool.ToolSchemas;
import java.time.Clock;
import java.time.ZonedDateTime;
import java.util.List;
import java.util.OptionalInt;
import java.util.stream.IntStream;

/** From a request to the tokens of its prompt. Thread-safe. */
final class PromptEncoder {
  private final ModelText text;
  private final Clock clock;
  private final Engine engine;
  private final ToolSchemaCompiler schemas = new ToolSchemaCompiler();

  /**
   * A prompt, ready for the engine.
   *
   * @param begun the text that the answer begins with already: the request's prefill, and what
   *     makes the model call a tool that it must call
   * @param reasoning the prompt ends within reasoning
   * @param tools that the answer may call
   */
  record Encoded(int[] tokens, String begun, boolean reasoning, ToolSchemas tools) {}

  /**
   * @param clock what templates take for the date
   * @param engine says how long a prompt may be
   */
  PromptEncoder(ModelText text, Clock clock, Engine engine) {
    this.text = text;
    this.clock = clock;
    this.engine = engine;
  }

  /**
   * Encodes a request's prompt.
   *
   * @throws InvalidRequestException if it can never succeed
   * @throws RefusedException if it asks for something that this model does not have
   */
  Encoded encode(GenerateRequest request) {
    if (request.responseFormat().kind() != ResponseFormat.Kind.TEXT) {
      throw unsupported(
          "response format "
              + request.responseFormat().kind()
              + " is not supported; ask for the form in the prompt");
    }
    List<Tool> shown =
        request.toolChoice().mode() == ToolChoice.Mode.NONE ? List.of() : request.tools();
    ToolSchemas tools = schemas.compile(shown);
    String begun = request.prefill() + forcedCall(request.toolChoice(), tools);
    return switch (request.prompt()) {
      case Prompt.Chat chat -> chat(request, new Chat(chat.messages(), shown), begun, tools);
      case Prompt.Text raw -> {
        refuseReasoning(request);
        int[] ids = bounded(text.tokenizer().encode(raw.text() + begun, mostTokens()));
        OptionalInt begin = text.tokenizer().beginOfText();
        yield new Encoded(
            begin.isPresent() ? join(new int[] {begin.getAsInt()}, ids) : ids, begun, false, tools);
      }
      case Prompt.Tokens tokens -> {
        refuseReasoning(request);
        yield new Encoded(join(tokens.ids(), text.tokenizer().encode(begun)), begun, false, tools);
      }
    };
  }

  private Encoded chat(GenerateRequest request, Chat chat, String begun, ToolSchemas tools) {
    ChatTemplate template = text.template();
    if (template == null) {
      throw unsupported("the model has no chat template: send a text or tokens as the prompt");
    }
    if (chat.messages().isEmpty()) {
      throw new InvalidRequestException("the conversation has no messages");
    }
    if (!chat.tools().isEmpty() && !template.showsTools()) {
      throw unsupported(
          "the model's chat template has no place for tools: give the worker a template that has,"
              + " or describe them in a message");
    }
    SpecialMarks marks = text.tokenizer().marks();
    String marked = template.render(chat.withReasoning(request.reasoning()), now());
    return new Encoded(
        bounded(text.tokenizer().encodeMarked(marked + marks.guard(begun), mostTokens())),
        begun,
        marked.stripTrailing().endsWith("<think>"),
        tools);
  }

  private int mostTokens() {
    return engine.maxContext() - 1;
  }

  /** A prompt of many megabytes for a small context must not be encoded to its end first. */
  private int[] bounded(int[] ids) {
    if (ids.length > mostTokens()) {
      throw new RefusedException(
          Failure.PROMPT_TOO_LONG, engine.tooLong("more than " + mostTokens()));
    }
    return ids;
  }

  private ZonedDateTime now() {
    return ZonedDateTime.now(clock);
  }

  /** The beginning of a call, where the answer must be one: the model can only go on with it. */
  private String forcedCall(ToolChoice choice, ToolSchemas tools) {
    return switch (choice.mode()) {
      case AUTO, NONE -> "";
      case REQUIRED -> {
        if (tools.names().isEmpty()) {
          throw new InvalidRequestException("a tool call is required, but there are no tools");
        }
        yield text.dialect().beginning();
      }
      case NAMED -> {
        String name = choice.name();
        if (name == null || !tools.names().contains(name)) {
          throw new InvalidRequestException(
              "the tool to call is " + name + ", the tools are " + tools.names());
        }
        yield text.dialect().beginning(name);
      }
    };
  }

  private static void refuseReasoning(GenerateRequest request) {
    if (request.reasoning() != null) {
      throw unsupported(
          "reasoning can be switched on or off in conversations only: write the model's own switch"
              + " into the text");
    }
  }

  private static RefusedException unsupported(String message) {
    return new RefusedException(Failure.UNSUPPORTED, message);
  }

  private static int[] join(int[] a, int[] b) {
    return IntStream.concat(IntStream.of(a), IntStream.of(b)).toArray();
  }
}
