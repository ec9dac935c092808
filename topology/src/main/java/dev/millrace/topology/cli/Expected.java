package dev.millrace.topology.cli;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import dev.millrace.schemas.CompletionEvent;
import dev.millrace.schemas.CompletionToolCall;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * The right answer to a prompt.
 *
 * @param content the answer's text, compared without the white space around it, or as JSON where
 *     both are JSON objects; null if calls are expected
 * @param calls the calls, in order; null if text is expected
 */
public record Expected(@Nullable String content, @Nullable List<Call> calls) {
  private static final ObjectMapper JSON =
      new ObjectMapper().enable(DeserializationFeature.FAIL_ON_TRAILING_TOKENS);

  /**
   * A call.
   *
   * @param arguments a JSON object
   */
  public record Call(String name, JsonNode arguments) {}

  /** Whether the completion is right; what it thought before does not count. */
  public boolean matches(CompletionEvent completion) {
    List<CompletionToolCall> made = completion.getToolCalls();
    if (calls == null) {
      return made.isEmpty() && sameText(completion.getContent());
    }
    if (made.size() != calls.size()) {
      return false;
    }
    for (int i = 0; i < calls.size(); i++) {
      Call call = calls.get(i);
      JsonNode arguments = parse(made.get(i).getArguments());
      if (!call.name().equals(made.get(i).getName())
          || arguments == null
          || !same(call.arguments(), arguments)) {
        return false;
      }
    }
    return true;
  }

  /** As a person writes it down. */
  @Override
  public String toString() {
    if (calls == null) {
      return String.valueOf(content);
    }
    StringBuilder text = new StringBuilder();
    for (Call call : calls) {
      text.append(text.isEmpty() ? "" : ", ").append(call.name()).append(call.arguments());
    }
    return text.toString();
  }

  private boolean sameText(String answer) {
    if (content == null) {
      return false;
    }
    if (content.strip().equals(answer.strip())) {
      return true;
    }
    JsonNode wanted = parse(content);
    JsonNode given = parse(answer);
    return wanted != null && wanted.isObject() && given != null && same(wanted, given);
  }

  /** Equal as JSON: numbers by value, so that 7 is 7.0, and objects whatever the order. */
  private static boolean same(JsonNode a, JsonNode b) {
    return a.equals(
        (x, y) -> {
          if (x.equals(y)) {
            return 0;
          }
          return x.isNumber() && y.isNumber() ? x.decimalValue().compareTo(y.decimalValue()) : 1;
        },
        b);
  }

  private static @Nullable JsonNode parse(String text) {
    try {
      JsonNode node = JSON.readTree(text);
      return node.isMissingNode() ? null : node;
    } catch (JsonProcessingException e) {
      return null;
    }
  }
}
