package dev.millrace.inference.tool;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import dev.harrel.jsonschema.JsonNodeFactory;
import dev.harrel.jsonschema.SimpleType;
import java.math.BigDecimal;
import java.math.BigInteger;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/** A JSON value for the schema library that counts how often it is looked at. */
final class BoundedNode implements dev.harrel.jsonschema.JsonNode {
  /** Makes the nodes that the library asks for itself: its own meta-schemas. */
  static final JsonNodeFactory FACTORY =
      new JsonNodeFactory() {
        @Override
        public dev.harrel.jsonschema.JsonNode wrap(Object node) {
          return node instanceof BoundedNode bounded
              ? bounded
              : new BoundedNode((JsonNode) node, new WorkLimit());
        }

        @Override
        public dev.harrel.jsonschema.JsonNode create(String rawJson) {
          try {
            return new BoundedNode(new ObjectMapper().readTree(rawJson), new WorkLimit());
          } catch (JsonProcessingException e) {
            throw new IllegalArgumentException(e);
          }
        }
      };

  /** Numbers with more digits before or behind the point than this take too long to compare. */
  private static final int MOST_DIGITS = 400;

  private final JsonNode node;
  private final String pointer;
  private final WorkLimit limit;
  private @Nullable List<dev.harrel.jsonschema.JsonNode> elements;
  private @Nullable Map<String, dev.harrel.jsonschema.JsonNode> fields;

  BoundedNode(JsonNode node, WorkLimit limit) {
    this(node, "", limit);
  }

  private BoundedNode(JsonNode node, String pointer, WorkLimit limit) {
    this.node = node;
    this.pointer = pointer;
    this.limit = limit;
  }

  WorkLimit limit() {
    return limit;
  }

  @Override
  public String getJsonPointer() {
    return pointer;
  }

  @Override
  public SimpleType getNodeType() {
    limit.spendValue();
    return switch (node.getNodeType()) {
      case NULL, MISSING -> SimpleType.NULL;
      case BOOLEAN -> SimpleType.BOOLEAN;
      case STRING, BINARY, POJO -> SimpleType.STRING;
      case ARRAY -> SimpleType.ARRAY;
      case OBJECT -> SimpleType.OBJECT;
      case NUMBER ->
          asNumber().stripTrailingZeros().scale() <= 0 ? SimpleType.INTEGER : SimpleType.NUMBER;
    };
  }

  @Override
  public boolean asBoolean() {
    return node.booleanValue();
  }

  @Override
  public String asString() {
    return node.asText();
  }

  @Override
  public BigInteger asInteger() {
    return asNumber().toBigInteger();
  }

  @Override
  public BigDecimal asNumber() {
    BigDecimal number = node.decimalValue();
    if (number.precision() > MOST_DIGITS
        || number.scale() > MOST_DIGITS
        || number.scale() < -MOST_DIGITS) {
      throw new WorkLimit.ExceededException(
          "the number at " + pointer + " has more than " + MOST_DIGITS + " digits");
    }
    return number;
  }

  @Override
  public List<dev.harrel.jsonschema.JsonNode> asArray() {
    if (elements == null) {
      List<dev.harrel.jsonschema.JsonNode> list = new ArrayList<>(node.size());
      for (int i = 0; i < node.size(); i++) {
        list.add(new BoundedNode(node.get(i), pointer + "/" + i, limit));
      }
      elements = list;
    }
    return elements;
  }

  @Override
  public Map<String, dev.harrel.jsonschema.JsonNode> asObject() {
    if (fields == null) {
      Map<String, dev.harrel.jsonschema.JsonNode> map = new LinkedHashMap<>();
      for (Map.Entry<String, JsonNode> field : node.properties()) {
        String escaped = dev.harrel.jsonschema.JsonNode.encodeJsonPointer(field.getKey());
        map.put(field.getKey(), new BoundedNode(field.getValue(), pointer + "/" + escaped, limit));
      }
      fields = map;
    }
    return fields;
  }
}
