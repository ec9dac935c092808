package dev.millrace.inference.api;

/**
 * What shape the answer must have.
 *
 * @param schema JSON schema text with {@link Kind#JSON_SCHEMA}, else empty
 */
public record ResponseFormat(Kind kind, String schema) {
  /** Shapes that a request can ask for. */
  public enum Kind {
    TEXT,
    JSON_OBJECT,
    JSON_SCHEMA
  }

  public static final ResponseFormat TEXT = new ResponseFormat(Kind.TEXT, "");
}
