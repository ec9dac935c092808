package dev.millrace.inference.tool;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import dev.harrel.jsonschema.Dialects;
import dev.harrel.jsonschema.InvalidSchemaException;
import dev.harrel.jsonschema.SpecificationVersion;
import dev.harrel.jsonschema.Validator;
import dev.harrel.jsonschema.ValidatorFactory;
import dev.millrace.inference.api.InvalidRequestException;
import dev.millrace.inference.api.Tool;
import java.net.URI;
import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * Makes {@link ToolSchemas} of a request's tools. A schema is JSON schema draft 2020-12 unless its
 * {@code $schema} names another draft. Schemas are hostile input: none is fetched from anywhere.
 * Compiled ones are kept, the last used up to a fixed size in characters. Thread-safe.
 */
public final class ToolSchemaCompiler {
  private static final int MOST_NAME_LENGTH = 128;
  private static final int MOST_KEPT = 512;
  private static final int MOST_KEPT_LENGTH = 4 << 20;

  /** Checks schemas against the drafts' own schemas; guarded by this. */
  private final Validator drafts = factory().createValidator();

  /** Compiled schemas by their text, the one used longest ago first; guarded by this. */
  private final LinkedHashMap<String, ToolSchemas.Schema> kept =
      new LinkedHashMap<>(64, 0.75f, true);

  private long keptLength;

  /**
   * Compiles the tools' schemas.
   *
   * @throws InvalidRequestException if a tool's name or schema is none; it says which and why
   */
  public ToolSchemas compile(List<Tool> tools) {
    if (tools.isEmpty()) {
      return ToolSchemas.NONE;
    }
    Map<String, ToolSchemas.Schema> byName = new LinkedHashMap<>();
    for (Tool tool : tools) {
      checkName(tool.name());
      if (byName.put(tool.name(), schema(tool)) != null) {
        throw new InvalidRequestException("two tools have the name " + tool.name());
      }
    }
    return new ToolSchemas(byName);
  }

  private static void checkName(String name) {
    if (name.isEmpty() || name.length() > MOST_NAME_LENGTH) {
      throw new InvalidRequestException(
          "a tool's name has "
              + name.length()
              + " characters, it must have 1 to "
              + MOST_NAME_LENGTH);
    }
    for (int i = 0; i < name.length(); i++) {
      char c = name.charAt(i);
      // Templates write names between quotes as they are.
      if (c == '"' || c == '\\' || c == '<' || c == '>' || Character.isISOControl(c)) {
        throw new InvalidRequestException(
            String.format(
                "the tool name %s holds U+%04X; quotes, backslashes, angle brackets and control"
                    + " characters are not allowed",
                name, (int) c));
      }
    }
  }

  private synchronized ToolSchemas.Schema schema(Tool tool) {
    String text = tool.parameters();
    ToolSchemas.Schema schema = kept.get(text);
    if (schema == null) {
      schema = build(tool);
      kept.put(text, schema);
      keptLength += text.length();
      Iterator<String> oldest = kept.keySet().iterator();
      while (kept.size() > MOST_KEPT || (keptLength > MOST_KEPT_LENGTH && kept.size() > 1)) {
        keptLength -= oldest.next().length();
        oldest.remove();
      }
    }
    return schema;
  }

  private ToolSchemas.Schema build(Tool tool) {
    if (tool.parameters().isBlank()) {
      return new ToolSchemas.Schema(null);
    }
    try {
      JsonNode schema = ToolSchemas.JSON.readTree(tool.parameters());
      if (!schema.isObject()) {
        throw invalid(tool, "it is " + ToolSchemas.kind(schema) + ", a JSON schema is an object");
      }
      checkReferences(tool, schema);
      Validator.Result fits =
          drafts.validate(draft(tool, schema), new BoundedNode(schema, new WorkLimit()));
      if (!fits.isValid()) {
        throw invalid(tool, ToolSchemas.text(fits.getErrors()));
      }
      Validator validator = factory().withDisabledSchemaValidation(true).createValidator();
      validator.registerSchema(ToolSchemas.ROOT, new BoundedNode(schema, new WorkLimit()));
      return new ToolSchemas.Schema(validator);
    } catch (JsonProcessingException e) {
      throw invalid(tool, "it is no JSON: " + e.getOriginalMessage());
    } catch (InvalidSchemaException e) {
      throw invalid(tool, ToolSchemas.text(e.getErrors()));
    } catch (StackOverflowError e) {
      throw invalid(tool, "it is nested too deep");
    } catch (InvalidRequestException e) {
      throw e;
    } catch (RuntimeException e) {
      // The library reports bad patterns, ids and the like in many ways.
      throw invalid(tool, String.valueOf(e.getMessage()));
    }
  }

  private static ValidatorFactory factory() {
    return new ValidatorFactory()
        .withDefaultDialect(new Dialects.Draft2020Dialect())
        .withJsonNodeFactory(BoundedNode.FACTORY)
        .withEvaluatorFactory(new BoundedPatterns());
  }

  /** The id of the draft that a schema is written in. */
  private static URI draft(Tool tool, JsonNode schema) {
    JsonNode named = schema.path("$schema");
    if (named.isMissingNode()) {
      return URI.create(SpecificationVersion.DRAFT2020_12.getId());
    }
    for (SpecificationVersion version : SpecificationVersion.values()) {
      if (withoutHash(version.getId()).equals(withoutHash(named.asText()))) {
        return URI.create(version.getId());
      }
    }
    throw invalid(
        tool, "$schema is " + named + ", known are the drafts 2020-12, 2019-09, 07, 06 and 04");
  }

  private static String withoutHash(String id) {
    return id.endsWith("#") ? id.substring(0, id.length() - 1) : id;
  }

  /** Only references within the schema are followed. */
  private static void checkReferences(Tool tool, JsonNode node) {
    for (String keyword : new String[] {"$ref", "$dynamicRef", "$recursiveRef"}) {
      String target = node.path(keyword).asText();
      if (node.path(keyword).isTextual() && !target.startsWith("#")) {
        throw invalid(
            tool,
            keyword + " names " + target + "; only references within the schema are followed");
      }
    }
    for (Iterator<JsonNode> children = node.elements(); children.hasNext(); ) {
      checkReferences(tool, children.next());
    }
  }

  private static InvalidRequestException invalid(Tool tool, String why) {
    return new InvalidRequestException(
        "the parameters of tool " + tool.name() + " are no JSON schema: " + why);
  }
}
