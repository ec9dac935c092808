package dev.millrace.inference.chat;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import dev.millrace.inference.api.InvalidRequestException;
import dev.millrace.inference.api.Message;
import dev.millrace.inference.api.Tool;
import dev.millrace.inference.chat.jinja.Limits;
import dev.millrace.inference.chat.jinja.Template;
import dev.millrace.inference.chat.jinja.TemplateException;
import dev.millrace.inference.token.SpecialMarks;
import dev.millrace.inference.token.TokenizerConfig;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.ZonedDateTime;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * A model's chat template: a conversation in, marked text out ({@link SpecialMarks}), in which the
 * special tokens are those that the template itself wrote and no others. Immutable and thread-safe.
 */
public final class ChatTemplate {
  private static final ObjectMapper JSON =
      new ObjectMapper().enable(DeserializationFeature.FAIL_ON_TRAILING_TOKENS);

  private static final String PROBE = "probe_0_function";

  private final String source;
  private final Template template;
  private final SpecialMarks marks;
  private final Map<String, @Nullable Object> constants = new LinkedHashMap<>();
  private final boolean showsTools;

  /**
   * @param config tells the texts of the tokens that begin and end a text
   * @throws TemplateException if the source is no template of the supported kind
   */
  public ChatTemplate(String source, SpecialMarks marks, TokenizerConfig config) {
    this.source = source;
    this.template = Template.parse(source, marks::mark);
    this.marks = marks;
    constants.put("add_generation_prompt", true);
    constants.put("documents", null);
    if (config.beginOfText() != null) {
      constants.put("bos_token", marks.mark(config.beginOfText()));
    }
    if (config.endOfText() != null) {
      constants.put("eos_token", marks.mark(config.endOfText()));
    }
    this.showsTools = probe(List.of(new Tool(PROBE, "", ""))).contains(PROBE);
    if (marks.spells(probe(List.of()))) {
      throw new IllegalArgumentException(
          "the template puts special tokens together from pieces, so that they cannot be told from"
              + " text that only looks like them; write them as whole literals");
    }
  }

  /**
   * Reads a checkpoint's template: the given file, else {@code chat_template.jinja}, else the one
   * in {@code tokenizer_config.json}.
   *
   * @param file another template than the checkpoint's own, or null
   * @return null if the checkpoint has none, and so takes no conversations
   * @throws IOException if it cannot be read; the message names the file, and the line where
   *     something is wrong with the template
   */
  public static @Nullable ChatTemplate open(Path folder, SpecialMarks marks, @Nullable Path file)
      throws IOException {
    TokenizerConfig config = TokenizerConfig.read(folder);
    Path from = file != null ? file : folder.resolve("chat_template.jinja");
    String source = config.chatTemplate();
    if (file != null || Files.exists(from)) {
      source = Files.readString(from);
    } else {
      from = folder.resolve("tokenizer_config.json");
    }
    if (source == null) {
      return null;
    }
    try {
      return new ChatTemplate(source, marks, config);
    } catch (TemplateException | IllegalArgumentException e) {
      throw new IOException(from + ": " + e.getMessage(), e);
    }
  }

  /** The template's text. */
  public String source() {
    return source;
  }

  /** Whether the template shows a request's tools to the model; some have no place for them. */
  public boolean showsTools() {
    return showsTools;
  }

  /**
   * Renders a conversation up to where the assistant's turn begins.
   *
   * @param now what the template takes for the date, if it writes one
   * @return marked text
   * @throws InvalidRequestException if the template does not take this conversation; the message is
   *     the template's own where it has one
   */
  public String render(Chat chat, ZonedDateTime now) {
    Map<String, @Nullable Object> values = new LinkedHashMap<>(constants);
    values.put("messages", chat.messages().stream().map(this::message).toList());
    List<Object> tools = new ArrayList<>();
    for (Tool tool : chat.tools()) {
      tools.add(tool(tool));
    }
    values.put("tools", tools.isEmpty() ? null : tools);
    try {
      return template.render(values, now, Limits.DEFAULT);
    } catch (TemplateException e) {
      throw new InvalidRequestException(
          "the model's chat template does not take this conversation: " + e.getMessage(), e);
    }
  }

  private String probe(List<Tool> tools) {
    try {
      Chat chat = new Chat(List.of(Message.of(Message.Role.USER, "a")), tools);
      return render(chat, ZonedDateTime.parse("2000-01-01T00:00:00Z"));
    } catch (InvalidRequestException e) {
      // Refuses the simplest of conversations: real ones will say why.
      return "";
    }
  }

  private Map<String, @Nullable Object> message(Message message) {
    Map<String, @Nullable Object> map = new LinkedHashMap<>();
    map.put("role", message.role().name().toLowerCase(Locale.ROOT));
    map.put("content", marks.guard(message.content()));
    // Templates ask whether these are there at all, so what is empty stays away.
    if (!message.toolCalls().isEmpty()) {
      map.put("tool_calls", message.toolCalls().stream().map(this::call).toList());
    }
    if (message.toolCallId() != null) {
      map.put("tool_call_id", marks.guard(message.toolCallId()));
    }
    if (message.name() != null) {
      map.put("name", marks.guard(message.name()));
    }
    return map;
  }

  private Map<String, @Nullable Object> call(Message.RequestedCall call) {
    Map<String, @Nullable Object> function = new LinkedHashMap<>();
    function.put("name", marks.guard(call.name()));
    function.put("arguments", arguments(call.arguments()));
    Map<String, @Nullable Object> map = new LinkedHashMap<>();
    map.put("type", "function");
    map.put("id", marks.guard(call.id()));
    map.put("function", function);
    return map;
  }

  /** Templates expect an object here; arguments that are none stay the text they are. */
  private @Nullable Object arguments(String text) {
    try {
      JsonNode json = JSON.readTree(text);
      return json.isObject() ? value(json) : marks.guard(text);
    } catch (JsonProcessingException e) {
      return marks.guard(text);
    }
  }

  private Map<String, @Nullable Object> tool(Tool tool) {
    Map<String, @Nullable Object> function = new LinkedHashMap<>();
    function.put("name", marks.guard(tool.name()));
    function.put("description", marks.guard(tool.description()));
    function.put("parameters", parameters(tool));
    Map<String, @Nullable Object> map = new LinkedHashMap<>();
    map.put("type", "function");
    map.put("function", function);
    return map;
  }

  private @Nullable Object parameters(Tool tool) {
    try {
      String text = tool.parameters();
      return value(
          JSON.readTree(text.isBlank() ? "{\"type\":\"object\",\"properties\":{}}" : text));
    } catch (JsonProcessingException e) {
      throw new InvalidRequestException(
          "the parameters of tool " + tool.name() + " are no JSON: " + e.getOriginalMessage(), e);
    }
  }

  /** JSON as a template's value, key order kept, texts guarded. */
  private @Nullable Object value(JsonNode json) {
    return switch (json.getNodeType()) {
      case NULL, MISSING -> null;
      case BOOLEAN -> json.booleanValue();
      case STRING, BINARY, POJO -> marks.guard(json.asText());
      case NUMBER -> {
        if (!json.isIntegralNumber()) {
          yield json.doubleValue();
        }
        yield json.canConvertToLong() ? (Object) json.longValue() : json.bigIntegerValue();
      }
      case ARRAY -> {
        List<@Nullable Object> list = new ArrayList<>(json.size());
        json.forEach(item -> list.add(value(item)));
        yield list;
      }
      case OBJECT -> {
        Map<String, @Nullable Object> map = new LinkedHashMap<>();
        json.properties().forEach(e -> map.put(marks.guard(e.getKey()), value(e.getValue())));
        yield map;
      }
    };
  }
}
