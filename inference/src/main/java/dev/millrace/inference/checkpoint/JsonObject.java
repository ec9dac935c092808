package dev.millrace.inference.checkpoint;

import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;

/** A JSON object of a checkpoint's configuration; every complaint names the file and the key. */
final class JsonObject {
  private static final ObjectMapper JSON =
      new ObjectMapper().enable(JsonParser.Feature.STRICT_DUPLICATE_DETECTION);

  private final Path file;
  private final String path;
  private final JsonNode node;

  private JsonObject(Path file, String path, JsonNode node) {
    this.file = file;
    this.path = path;
    this.node = node;
  }

  static JsonObject read(Path file) {
    try {
      JsonNode root = JSON.readTree(Files.readAllBytes(file));
      if (!root.isObject()) {
        throw new InvalidCheckpointException(file + " is no JSON object: download it again");
      }
      return new JsonObject(file, "", root);
    } catch (NoSuchFileException e) {
      throw new InvalidCheckpointException(
          file + " is missing: is this the folder of a Hugging Face checkpoint?", e);
    } catch (IOException e) {
      throw new InvalidCheckpointException(
          file + " cannot be read as JSON: " + e.getMessage() + ". Download it again.", e);
    }
  }

  /** Whether the key is there and not null. */
  boolean has(String key) {
    return node.hasNonNull(key);
  }

  /** The value as it is; a missing node where there is none. */
  JsonNode get(String key) {
    return node.path(key);
  }

  JsonObject object(String key) {
    return of(key, node.path(key));
  }

  /** Element {@code i} of the array at {@code key}. */
  JsonObject element(String key, int i) {
    return of(key + "[" + i + "]", node.path(key).path(i));
  }

  private JsonObject of(String key, JsonNode value) {
    if (!value.isObject()) {
      throw bad(key, value, "an object");
    }
    return new JsonObject(file, path + key + ".", value);
  }

  int positive(String key, int max) {
    JsonNode n = node.path(key);
    if (!n.isIntegralNumber() || !n.canConvertToInt() || n.intValue() < 1 || n.intValue() > max) {
      throw bad(key, n, "a whole number from 1 to " + max);
    }
    return n.intValue();
  }

  double positiveNumber(String key) {
    JsonNode n = node.path(key);
    double value = n.doubleValue();
    if (!n.isNumber() || !(value > 0) || Double.isInfinite(value)) {
      throw bad(key, n, "a number above 0");
    }
    return value;
  }

  double positiveNumber(String key, double otherwise) {
    return has(key) ? positiveNumber(key) : otherwise;
  }

  boolean flag(String key, boolean otherwise) {
    JsonNode n = node.path(key);
    if (n.isMissingNode() || n.isNull()) {
      return otherwise;
    }
    if (!n.isBoolean()) {
      throw bad(key, n, "true or false");
    }
    return n.booleanValue();
  }

  String text(String key) {
    JsonNode n = node.path(key);
    if (!n.isTextual()) {
      throw bad(key, n, "a text");
    }
    return n.textValue();
  }

  InvalidCheckpointException bad(String key, String expected) {
    return bad(key, node.path(key), expected);
  }

  private InvalidCheckpointException bad(String key, JsonNode found, String expected) {
    return new InvalidCheckpointException(
        "%s: %s%s is %s, expected %s"
            .formatted(
                file, path, key, found.isMissingNode() ? "missing" : shorten(found), expected));
  }

  /** Something that is well-formed but that this version cannot compute. */
  InvalidCheckpointException unsupported(String key, String supported) {
    return new InvalidCheckpointException(
        "%s: %s%s is %s, which this version does not support; it supports %s"
            .formatted(file, path, key, shorten(node.path(key)), supported));
  }

  private static String shorten(JsonNode n) {
    String text = n.toString();
    return text.length() <= 100 ? text : text.substring(0, 100) + "…";
  }
}
