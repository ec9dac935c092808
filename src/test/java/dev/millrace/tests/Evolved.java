package dev.millrace.tests;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.util.HashSet;
import java.util.Set;
import java.util.function.Consumer;
import org.apache.avro.Schema;
import org.jspecify.annotations.Nullable;

/** Later versions of a schema. */
final class Evolved {
  private static final ObjectMapper JSON = new ObjectMapper();

  private Evolved() {}

  /** The record with one more field. */
  static Schema withField(Schema record, String name, String type, @Nullable String defaultValue) {
    JsonNode tree = tree(record);
    ObjectNode field = ((ArrayNode) tree.get("fields")).addObject().put("name", name);
    field.set("type", read(type));
    if (defaultValue != null) {
      field.set("default", read(defaultValue));
    }
    return new Schema.Parser().parse(tree.toString());
  }

  /** The schema with one more symbol in each of its enums. */
  static Schema withSymbols(Schema schema) {
    JsonNode tree = tree(schema);
    for (JsonNode symbols : tree.findValues("symbols")) {
      ((ArrayNode) symbols).add("ADDED");
    }
    return new Schema.Parser().parse(tree.toString());
  }

  /** Visits a schema and every schema inside it, each named one once. */
  static void walk(Schema schema, Consumer<Schema> visitor) {
    walk(schema, visitor, new HashSet<>());
  }

  private static void walk(Schema schema, Consumer<Schema> visitor, Set<String> seen) {
    boolean named =
        switch (schema.getType()) {
          case RECORD, ENUM, FIXED -> true;
          default -> false;
        };
    if (named && !seen.add(schema.getFullName())) {
      return;
    }
    visitor.accept(schema);
    switch (schema.getType()) {
      case RECORD -> schema.getFields().forEach(f -> walk(f.schema(), visitor, seen));
      case UNION -> schema.getTypes().forEach(branch -> walk(branch, visitor, seen));
      case ARRAY -> walk(schema.getElementType(), visitor, seen);
      case MAP -> walk(schema.getValueType(), visitor, seen);
      default -> {}
    }
  }

  private static JsonNode tree(Schema schema) {
    return read(schema.toString());
  }

  private static JsonNode read(String json) {
    try {
      return JSON.readTree(json);
    } catch (JsonProcessingException e) {
      throw new AssertionError(json, e);
    }
  }
}
