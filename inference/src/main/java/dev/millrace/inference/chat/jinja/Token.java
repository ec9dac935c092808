package dev.millrace.inference.chat.jinja;

/**
 * A piece of a template's source.
 *
 * @param text the text; of a string literal what it stands for
 * @param line from 1
 */
record Token(Kind kind, String text, int line) {
  enum Kind {
    DATA,
    BLOCK_BEGIN,
    BLOCK_END,
    PRINT_BEGIN,
    PRINT_END,
    NAME,
    STRING,
    INTEGER,
    FLOAT,
    OPERATOR,
    END
  }

  boolean is(Kind wanted, String wantedText) {
    return kind == wanted && text.equals(wantedText);
  }

  boolean name(String name) {
    return is(Kind.NAME, name);
  }

  boolean operator(String operator) {
    return is(Kind.OPERATOR, operator);
  }

  /** How errors call it. */
  String describe() {
    return switch (kind) {
      case DATA -> "template data";
      case BLOCK_BEGIN -> "begin of statement block";
      case BLOCK_END -> "end of statement block";
      case PRINT_BEGIN -> "begin of print statement";
      case PRINT_END -> "end of print statement";
      case END -> "end of template";
      default -> text;
    };
  }
}
