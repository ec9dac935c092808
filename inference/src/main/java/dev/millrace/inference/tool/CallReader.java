package dev.millrace.inference.tool;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.millrace.inference.tool.ToolCallParser.Call;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/**
 * Reads calls from JSON that a model wrote, where braces may be missing: that of a call before the
 * next call or the end of the list, and those of its arguments before the end of the list. The
 * values in it must be JSON.
 *
 * <p>A call names one of the tools and has {@code arguments} (or {@code parameters}): an object, a
 * text that holds one, or none at all. A tool's schema that the model repeats is no call.
 */
final class CallReader {
  private final String text;
  private final Set<String> names;
  private final boolean complete;
  private int at;

  /**
   * @param text begins with a brace
   * @param complete the text will not go on, so that a missing brace is missing and not to come
   */
  CallReader(String text, Set<String> names, boolean complete) {
    this.text = text;
    this.names = names;
    this.complete = complete;
  }

  /** How much of the text the calls took. */
  int read() {
    return at;
  }

  /** The calls that the text begins with; none if one of its objects is no call. */
  List<Call> calls() {
    Call strict = strict();
    if (strict != null) {
      at = text.length();
      return List.of(strict);
    }
    List<Call> calls = new ArrayList<>();
    int end = 0;
    while (at < text.length() && text.charAt(at) == '{') {
      Map<String, String> members = members();
      Call call = members == null ? null : call(members);
      if (call == null) {
        break;
      }
      calls.add(call);
      end = at;
      skip(",;} \t\r\n");
    }
    at = end;
    return calls;
  }

  private @Nullable Call strict() {
    JsonNode json = parse(text);
    if (json == null || !json.isObject()) {
      return null;
    }
    JsonNode function = json.path("function").isObject() ? json.path("function") : json;
    Map<String, String> members = new LinkedHashMap<>();
    function.properties().forEach(e -> members.put(e.getKey(), e.getValue().toString()));
    Call call = call(members);
    if (call == null || function != json) {
      return call;
    }
    // Arguments as the model wrote them, where they can be found.
    Map<String, String> written = members();
    Call same = written == null ? null : call(written);
    return same == null ? call : same;
  }

  /**
   * The members of the object that begins here, each value as it is written; null if it is not even
   * an object with a brace missing.
   */
  private @Nullable Map<String, String> members() {
    Map<String, String> members = new LinkedHashMap<>();
    at++;
    skip(" \t\r\n");
    while (at < text.length() && text.charAt(at) == '"') {
      JsonNode key = parse(string());
      skip(" \t\r\n");
      if (key == null || at == text.length() || text.charAt(at) != ':') {
        return null;
      }
      at++;
      skip(" \t\r\n");
      String value = value();
      if (value == null) {
        return null;
      }
      members.put(key.asText(), value);
      skip(" \t\r\n");
      if (at == text.length() || text.charAt(at) == ']') {
        // The call's own brace is missing; its values are whole.
        return members;
      }
      char c = text.charAt(at);
      if (c == '}') {
        at++;
        return members;
      }
      if (c != ',') {
        return null;
      }
      int comma = at;
      at++;
      skip(" \t\r\n");
      if (at < text.length() && text.charAt(at) == '{') {
        // The next call begins: this one's brace is missing.
        at = comma;
        return members;
      }
    }
    if (at < text.length() && text.charAt(at) == '}') {
      at++;
      return members;
    }
    return null;
  }

  /** The JSON value that begins here, with missing braces added; null if there is none. */
  private @Nullable String value() {
    int from = at;
    if (at == text.length()) {
      return null;
    }
    char c = text.charAt(at);
    if (c == '"') {
      return string();
    }
    if (c != '{' && c != '[') {
      while (at < text.length() && ",}] \t\r\n".indexOf(text.charAt(at)) < 0) {
        at++;
      }
      return text.substring(from, at);
    }
    Deque<Character> open = new ArrayDeque<>();
    do {
      c = text.charAt(at);
      if (c == '"') {
        string();
        continue;
      }
      if (c == '{' || c == '[') {
        open.push(c == '{' ? '}' : ']');
      } else if (c == '}' || c == ']') {
        if (open.getFirst() != c) {
          // The list ends within an object: its braces are missing.
          return open.contains(']') || c != ']' ? null : text.substring(from, at) + close(open);
        }
        open.pop();
      }
      at++;
    } while (!open.isEmpty() && at < text.length());
    if (!open.isEmpty() && (!complete || open.contains(']'))) {
      return null;
    }
    return text.substring(from, at) + close(open);
  }

  private static String close(Deque<Character> open) {
    StringBuilder braces = new StringBuilder();
    open.forEach(braces::append);
    return braces.toString();
  }

  /** The string literal that begins here, to its end or to the end of the text. */
  private String string() {
    int from = at++;
    while (at < text.length() && text.charAt(at) != '"') {
      at += text.charAt(at) == '\\' ? 2 : 1;
    }
    at = Math.min(at + 1, text.length());
    return text.substring(from, at);
  }

  private void skip(String characters) {
    while (at < text.length() && characters.indexOf(text.charAt(at)) >= 0) {
      at++;
    }
  }

  private @Nullable Call call(Map<String, String> members) {
    JsonNode name = parse(members.getOrDefault("name", ""));
    if (name == null || !name.isTextual() || !names.contains(name.asText())) {
      return null;
    }
    String written = members.getOrDefault("arguments", members.get("parameters"));
    if (written == null) {
      // A name alone is a call without arguments; with anything else it is a schema.
      return members.size() == 1 ? new Call(name.asText(), "{}") : null;
    }
    JsonNode arguments = parse(written);
    if (arguments != null && arguments.isTextual()) {
      written = arguments.asText().isBlank() ? "{}" : arguments.asText();
      arguments = parse(written);
    } else if (arguments != null && arguments.isNull()) {
      return new Call(name.asText(), "{}");
    }
    if (!(arguments instanceof ObjectNode object)) {
      return null;
    }
    boolean schema =
        !members.containsKey("arguments")
            && (members.containsKey("description")
                || (object.path("type").isTextual() && object.path("properties").isObject()));
    return schema ? null : new Call(name.asText(), written.strip());
  }

  private static @Nullable JsonNode parse(String json) {
    try {
      JsonNode node = ToolSchemas.JSON.readTree(json);
      return node.isMissingNode() ? null : node;
    } catch (JsonProcessingException e) {
      return null;
    }
  }
}
