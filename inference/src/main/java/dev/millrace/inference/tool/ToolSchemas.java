package dev.millrace.inference.tool;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import dev.harrel.jsonschema.Error;
import dev.harrel.jsonschema.Validator;
import java.net.URI;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/**
 * The tools of one request and their JSON schemas, made by {@link ToolSchemaCompiler}. Checking
 * ends after a fixed amount of work, whatever a schema's regular expressions and references do.
 * Thread-safe.
 */
public final class ToolSchemas {
  /** No tools at all. */
  public static final ToolSchemas NONE = new ToolSchemas(Map.of());

  private static final int MOST_ERRORS = 3;
  private static final int MOST_ERROR_LENGTH = 300;
  static final ObjectMapper JSON =
      new ObjectMapper()
          .enable(DeserializationFeature.FAIL_ON_TRAILING_TOKENS)
          .enable(DeserializationFeature.USE_BIG_DECIMAL_FOR_FLOATS);
  static final URI ROOT = URI.create("urn:millrace:parameters");

  private final Map<String, Schema> byName;

  ToolSchemas(Map<String, Schema> byName) {
    this.byName = byName;
  }

  /** Names of the tools, in the order of the request. */
  public Set<String> names() {
    return byName.keySet();
  }

  /**
   * Checks the arguments of a call.
   *
   * @param arguments JSON text
   * @return null if they fit the tool's schema, else why not
   */
  public @Nullable String problem(String tool, String arguments) {
    Schema schema = byName.get(tool);
    if (schema == null) {
      return "there is no tool " + tool;
    }
    try {
      return schema.problem(JSON.readTree(arguments));
    } catch (JsonProcessingException e) {
      return "the arguments are no JSON: " + e.getOriginalMessage();
    }
  }

  /** One tool's schema; {@code validator} is null where any object will do. */
  record Schema(@Nullable Validator validator) {

    @Nullable String problem(JsonNode arguments) {
      if (!arguments.isObject()) {
        return "the arguments are " + kind(arguments) + ", not an object";
      }
      if (validator == null) {
        return null;
      }
      try {
        Validator.Result result =
            validator.validate(ROOT, new BoundedNode(arguments, new WorkLimit()));
        return result.isValid() ? null : text(result.getErrors());
      } catch (WorkLimit.ExceededException e) {
        return "not checked: " + e.getMessage();
      } catch (StackOverflowError e) {
        return "not checked: schema or arguments are nested too deep";
      } catch (RuntimeException e) {
        // A reference to a part that the schema does not have is found only now.
        return "not checked: " + e.getMessage();
      }
    }
  }

  static String kind(JsonNode node) {
    return switch (node.getNodeType()) {
      case ARRAY -> "an array";
      case OBJECT, POJO -> "an object";
      case STRING -> "a string";
      case NUMBER, BINARY -> "a number";
      case BOOLEAN -> "a boolean";
      case NULL -> "null";
      case MISSING -> "empty";
    };
  }

  static String text(List<Error> errors) {
    List<String> texts = new ArrayList<>();
    for (Error error : errors.subList(0, Math.min(errors.size(), MOST_ERRORS))) {
      String at = error.getInstanceLocation();
      String text = (at.isEmpty() ? "" : "at " + at + ": ") + error.getError();
      texts.add(
          text.length() > MOST_ERROR_LENGTH ? text.substring(0, MOST_ERROR_LENGTH) + "…" : text);
    }
    if (errors.size() > MOST_ERRORS) {
      texts.add(errors.size() - MOST_ERRORS + " more");
    }
    return texts.isEmpty() ? "it does not fit" : String.join("; ", texts);
  }
}
