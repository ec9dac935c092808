package dev.millrace.topology.cli;

import com.fasterxml.jackson.core.JsonLocation;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.core.json.JsonReadFeature;
import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.MappingIterator;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.json.JsonMapper;
import dev.millrace.schemas.MessageRole;
import dev.millrace.schemas.PromptEvent;
import dev.millrace.schemas.PromptMessage;
import dev.millrace.schemas.PromptSampling;
import dev.millrace.schemas.PromptTool;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/**
 * Prompts as a person writes them down: JSON objects one after another, on one line or on several,
 * with comments after {@code #} or {@code //}. Each object is a prompt, or a set of tools that
 * later prompts name.
 *
 * <pre>
 * # a prompt; only "user" is needed
 * {"user": "What is 12 + 30?", "thinking": true, "expect": "42"}
 * # tools under a name, and a prompt that uses them
 * {"toolset": "home", "tools": [{"name": "set_lamp", "description": "Sets a lamp.",
 *   "parameters": {"type": "object", "properties": {"room": {"type": "string"}}}}]}
 * {"user": "Please set the lamp with room attic.", "tools": "home",
 *   "expectCalls": [{"name": "set_lamp", "arguments": {"room": "attic"}}]}
 * </pre>
 *
 * <p>Fields of a prompt: {@code id}; {@code user}, or {@code messages} (objects with {@code role}
 * and {@code content}); {@code system}; {@code tools} (a list, or a set's name); {@code thinking};
 * {@code maxTokens}, {@code temperature}, {@code seed}; {@code expect} or {@code expectCalls}. Any
 * other name is an error, so that a slip of the pen does not pass unnoticed.
 */
public final class PromptsFile {
  private static final ObjectMapper JSON =
      JsonMapper.builder()
          .enable(JsonReadFeature.ALLOW_JAVA_COMMENTS)
          .enable(JsonReadFeature.ALLOW_YAML_COMMENTS)
          .enable(DeserializationFeature.USE_BIG_DECIMAL_FOR_FLOATS)
          .build();
  private static final Set<String> PROMPT_FIELDS =
      Set.of(
          "id",
          "task",
          "user",
          "messages",
          "system",
          "tools",
          "thinking",
          "maxTokens",
          "temperature",
          "seed",
          "expect",
          "expectCalls");
  private static final Set<String> TOOLSET_FIELDS = Set.of("toolset", "tools");

  private PromptsFile() {}

  /**
   * A prompt of the file.
   *
   * @param task what kind of prompt it is; empty if the file does not say
   * @param expected null if the file does not say what is right
   */
  public record Entry(String task, PromptEvent prompt, @Nullable Expected expected) {}

  /** A file that cannot be used; the message says where and why. */
  public static final class BadFileException extends RuntimeException {
    private static final long serialVersionUID = 1L;

    BadFileException(String message) {
      super(message);
    }
  }

  /**
   * Reads all prompts. A prompt without an id gets {@code prompt-1}, {@code prompt-2} and so on, by
   * its place in the file.
   *
   * @throws BadFileException if the file is missing, is not JSON, or an object is no prompt
   */
  public static List<Entry> read(Path file) {
    try {
      return parse(file.toString(), Files.readString(file));
    } catch (IOException e) {
      throw new BadFileException("cannot read the prompts file " + file + ": " + e);
    }
  }

  /** A list of tools, as it stands in a prompt's {@code tools}, or a file with one set of them. */
  public static List<PromptTool> readTools(Path file) {
    try {
      JsonNode node = JSON.readTree(Files.readString(file));
      return tools(node.isObject() ? node.path("tools") : node, file + ": ");
    } catch (JsonProcessingException e) {
      throw new BadFileException(file + " is not JSON: " + e.getOriginalMessage());
    } catch (IOException e) {
      throw new BadFileException("cannot read the tools file " + file + ": " + e);
    }
  }

  static List<Entry> parse(String name, String text) {
    List<Entry> entries = new ArrayList<>();
    Map<String, List<PromptTool>> toolsets = new HashMap<>();
    Set<String> ids = new HashSet<>();
    int line = 1;
    try (MappingIterator<JsonNode> objects = JSON.readerFor(JsonNode.class).readValues(text)) {
      while (objects.hasNextValue()) {
        line = objects.getParser().currentTokenLocation().getLineNr();
        String where = name + ":" + line + ": ";
        JsonNode node = objects.nextValue();
        require(node.isObject(), where + "a prompt is a JSON object, but this is " + node);
        if (node.has("toolset")) {
          only(node, TOOLSET_FIELDS, where);
          toolsets.put(text(node, "toolset", where), tools(node.path("tools"), where));
          continue;
        }
        Entry entry = entry(node, toolsets, entries.size() + 1, where);
        require(
            ids.add(entry.prompt().getId()),
            where + "the id " + entry.prompt().getId() + " stands in the file twice");
        entries.add(entry);
      }
    } catch (JsonProcessingException e) {
      JsonLocation at = e.getLocation();
      throw new BadFileException(
          name + ":" + (at == null ? line : at.getLineNr()) + ": " + e.getOriginalMessage());
    } catch (IOException e) {
      throw new BadFileException(name + ":" + line + ": " + e.getMessage());
    }
    require(!entries.isEmpty(), name + " holds no prompt");
    return entries;
  }

  private static Entry entry(
      JsonNode node, Map<String, List<PromptTool>> toolsets, int number, String where) {
    only(node, PROMPT_FIELDS, where);
    PromptEvent.Builder prompt =
        PromptEvent.newBuilder()
            .setId(node.has("id") ? text(node, "id", where) : "prompt-" + number)
            .setMessages(messages(node, where))
            .setTools(toolsOf(node, toolsets, where))
            .setSampling(sampling(node, where));
    if (node.has("thinking")) {
      require(node.get("thinking").isBoolean(), where + "\"thinking\" must be true or false");
      prompt.setReasoning(node.get("thinking").booleanValue());
    }
    return new Entry(
        node.has("task") ? text(node, "task", where) : "", prompt.build(), expected(node, where));
  }

  private static List<PromptMessage> messages(JsonNode node, String where) {
    require(
        node.has("user") != node.has("messages"),
        where + "a prompt has \"user\" or \"messages\", one of the two");
    List<PromptMessage> messages = new ArrayList<>();
    if (node.has("system")) {
      messages.add(message(MessageRole.SYSTEM, text(node, "system", where)));
    }
    if (node.has("user")) {
      messages.add(message(MessageRole.USER, text(node, "user", where)));
      return messages;
    }
    require(node.get("messages").isArray(), where + "\"messages\" must be a list");
    for (JsonNode each : node.get("messages")) {
      String role = text(each, "role", where);
      messages.add(
          message(
              switch (role) {
                case "system" -> MessageRole.SYSTEM;
                case "user" -> MessageRole.USER;
                case "assistant" -> MessageRole.ASSISTANT;
                case "tool" -> MessageRole.TOOL;
                default ->
                    throw new BadFileException(
                        where + "\"role\" is " + role + ": it is system, user, assistant or tool");
              },
              text(each, "content", where)));
    }
    return messages;
  }

  private static PromptMessage message(MessageRole role, String content) {
    return PromptMessage.newBuilder().setRole(role).setContent(content).build();
  }

  private static List<PromptTool> toolsOf(
      JsonNode node, Map<String, List<PromptTool>> toolsets, String where) {
    JsonNode tools = node.path("tools");
    if (!tools.isTextual()) {
      return tools.isMissingNode() ? List.of() : tools(tools, where);
    }
    List<PromptTool> set = toolsets.get(tools.textValue());
    if (set == null) {
      throw new BadFileException(
          where + "no toolset " + tools.textValue() + " stands above, only " + toolsets.keySet());
    }
    return set;
  }

  /** Each tool plain, or as OpenAI's interface wraps it: {@code {"type": "function", ...}}. */
  private static List<PromptTool> tools(JsonNode list, String where) {
    require(list.isArray(), where + "\"tools\" must be a list of tools");
    List<PromptTool> tools = new ArrayList<>();
    for (JsonNode each : list) {
      JsonNode tool = each.has("function") ? each.get("function") : each;
      tools.add(
          PromptTool.newBuilder()
              .setName(text(tool, "name", where))
              .setDescription(tool.has("description") ? text(tool, "description", where) : "")
              .setParameters(tool.has("parameters") ? tool.get("parameters").toString() : "")
              .build());
    }
    return tools;
  }

  private static PromptSampling sampling(JsonNode node, String where) {
    PromptSampling.Builder sampling = PromptSampling.newBuilder();
    if (node.has("maxTokens")) {
      sampling.setMaxTokens((int) number(node, "maxTokens", where).longValue());
    }
    if (node.has("temperature")) {
      sampling.setTemperature(number(node, "temperature", where).doubleValue());
    }
    if (node.has("seed")) {
      sampling.setSeed(number(node, "seed", where).longValue());
    }
    return sampling.build();
  }

  private static @Nullable Expected expected(JsonNode node, String where) {
    if (node.has("expectCalls")) {
      require(!node.has("expect"), where + "\"expect\" or \"expectCalls\", not both");
      require(node.get("expectCalls").isArray(), where + "\"expectCalls\" must be a list of calls");
      List<Expected.Call> calls = new ArrayList<>();
      for (JsonNode call : node.get("expectCalls")) {
        require(call.path("arguments").isObject(), where + "a call's \"arguments\" are an object");
        calls.add(new Expected.Call(text(call, "name", where), call.get("arguments")));
      }
      return new Expected(null, calls);
    }
    return node.has("expect") ? new Expected(text(node, "expect", where), null) : null;
  }

  private static String text(JsonNode node, String field, String where) {
    JsonNode value = node.path(field);
    require(value.isTextual(), where + "\"" + field + "\" must be a text");
    return value.textValue();
  }

  private static Number number(JsonNode node, String field, String where) {
    JsonNode value = node.get(field);
    require(value.isNumber(), where + "\"" + field + "\" must be a number");
    return value.numberValue();
  }

  private static void only(JsonNode node, Set<String> known, String where) {
    for (Map.Entry<String, JsonNode> field : node.properties()) {
      require(
          known.contains(field.getKey()),
          where
              + String.format(
                  Locale.ROOT,
                  "there is no field \"%s\": a prompt has %s",
                  field.getKey(),
                  known.stream().sorted().toList()));
    }
  }

  private static void require(boolean holds, String message) {
    if (!holds) {
      throw new BadFileException(message);
    }
  }
}
