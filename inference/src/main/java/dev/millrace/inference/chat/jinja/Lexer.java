package dev.millrace.inference.chat.jinja;

import dev.millrace.inference.chat.jinja.Token.Kind;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.List;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * Cuts a template's source into tokens and settles white space as Jinja does with {@code
 * trim_blocks} and {@code lstrip_blocks} on: a line break behind a block or a comment goes, and so
 * does white space between the line's start and it; {@code -} takes all white space on its side,
 * {@code +} keeps what would go. One line break at the very end of the source goes too.
 */
final class Lexer {
  private static final Pattern RAW_BEGIN =
      Pattern.compile("\\{%[-+]?\\s*raw\\s*(?:-%\\}\\s*|%\\})", Pattern.UNICODE_CHARACTER_CLASS);
  private static final Pattern RAW_END =
      Pattern.compile(
          "\\{%([-+]?)\\s*endraw\\s*(?:\\+%\\}|-%\\}\\s*|%\\}\\n?)",
          Pattern.UNICODE_CHARACTER_CLASS);
  private static final Pattern FLOAT =
      Pattern.compile(
          "(?:\\d+_)*\\d+(?:(?:\\.(?:\\d+_)*\\d+)?[eE][+-]?(?:\\d+_)*\\d+|\\.(?:\\d+_)*\\d+)");
  private static final Pattern INTEGER =
      Pattern.compile("0[bB](?:_?[01])+|0[oO](?:_?[0-7])+|0[xX](?:_?[\\da-fA-F])+|\\d(?:_?\\d)*");
  private static final Pattern NAME =
      Pattern.compile("[\\w&&[^\\d]]\\w*", Pattern.UNICODE_CHARACTER_CLASS);
  private static final Pattern OPERATOR =
      Pattern.compile("//|\\*\\*|==|!=|>=|<=|[-+*/%~()\\[\\]{}<>=.:|,;]");

  private final String source;
  private final List<Token> tokens = new ArrayList<>();
  private int at;
  private int line = 1;
  private int counted;

  /** Whether what was read last ended with a line break, so that a line begins here. */
  private boolean lineStarts = true;

  private Lexer(String source) {
    this.source = source;
  }

  /**
   * @throws TemplateException if the source holds something that is no token
   */
  static List<Token> tokens(String source) {
    String text = source.replace("\r\n", "\n").replace('\r', '\n');
    if (text.endsWith("\n")) {
      text = text.substring(0, text.length() - 1);
    }
    Lexer lexer = new Lexer(text);
    lexer.run();
    return lexer.tokens;
  }

  private void run() {
    while (at < source.length()) {
      int begin = nextBegin();
      if (begin < 0) {
        data(source.substring(at), false, ' ');
        at = source.length();
        break;
      }
      char kind = source.charAt(begin + 1);
      char sign = begin + 2 < source.length() ? source.charAt(begin + 2) : ' ';
      String before = source.substring(at, begin);
      data(before, kind != '{', sign);
      at = begin;
      Matcher raw = matcher(RAW_BEGIN);
      if (kind == '%' && raw.lookingAt()) {
        raw(raw.end());
      } else if (kind == '#') {
        comment(begin);
      } else {
        at = begin + (sign == '-' || sign == '+' ? 3 : 2);
        inside(kind == '%');
      }
    }
    add(Kind.END, "");
  }

  private int nextBegin() {
    for (int i = source.indexOf('{', at); i >= 0; i = source.indexOf('{', i + 1)) {
      if (i + 1 < source.length() && "{%#".indexOf(source.charAt(i + 1)) >= 0) {
        return i;
      }
    }
    return -1;
  }

  /** Adds text, less the white space at its end that what follows it takes. */
  private void data(String text, boolean beforeBlock, char sign) {
    String kept = text;
    if (sign == '-') {
      kept = Values.stripRight(text);
    } else if (sign != '+' && beforeBlock) {
      int lineStart = text.lastIndexOf('\n') + 1;
      if ((lineStart > 0 || lineStarts) && Values.isSpace(text.substring(lineStart))) {
        kept = text.substring(0, lineStart);
      }
    }
    if (!kept.isEmpty()) {
      add(Kind.DATA, kept);
    }
  }

  private void comment(int begin) {
    int end = source.indexOf("#}", begin + 2);
    if (end < 0) {
      throw error("Missing end of comment tag");
    }
    // {#-#} has one sign, which counts for both sides.
    afterTag(end + 2, end > begin + 2 ? source.charAt(end - 1) : ' ');
  }

  private void raw(int from) {
    at = from;
    Matcher end = RAW_END.matcher(source);
    if (!end.find(from)) {
      throw error("Missing end of raw directive");
    }
    lineStarts = source.charAt(from - 1) == '\n';
    String sign = end.group(1);
    data(source.substring(from, end.start()), true, sign.isEmpty() ? ' ' : sign.charAt(0));
    at = end.end();
    lineStarts = source.charAt(at - 1) == '\n';
  }

  /** Goes on behind a tag that ends at {@code end}, past the white space that it takes. */
  private void afterTag(int end, char sign) {
    at = end;
    if (sign == '-') {
      while (at < source.length() && Values.isSpace(source.charAt(at))) {
        at++;
      }
    } else if (sign != '+' && at < source.length() && source.charAt(at) == '\n') {
      at++;
    }
    lineStarts = source.charAt(at - 1) == '\n';
  }

  /** Reads the tokens of a block or a print statement and its end. */
  private void inside(boolean block) {
    add(block ? Kind.BLOCK_BEGIN : Kind.PRINT_BEGIN, "");
    String end = block ? "%}" : "}}";
    Deque<Character> open = new ArrayDeque<>();
    while (true) {
      while (at < source.length() && Values.isSpace(source.charAt(at))) {
        at++;
      }
      if (at == source.length()) {
        throw error(
            "unexpected end of template, expected 'end of "
                + (block ? "statement block" : "print statement")
                + "'.");
      }
      char c = source.charAt(at);
      if (open.isEmpty()) {
        boolean signed = c == '-' || (block && c == '+');
        if (source.startsWith(end, at + (signed ? 1 : 0))) {
          add(block ? Kind.BLOCK_END : Kind.PRINT_END, "");
          afterTag(at + (signed ? 3 : 2), signed ? c : block ? ' ' : '+');
          return;
        }
      }
      one(c, open);
    }
  }

  private void one(char c, Deque<Character> open) {
    Token last = tokens.get(tokens.size() - 1);
    Matcher matcher = matcher(FLOAT);
    // After a point digits are an index: a.0.1
    if (!last.operator(".") && matcher.lookingAt()) {
      take(Kind.FLOAT, matcher.group().replace("_", ""), matcher.end());
    } else if ((matcher = matcher(INTEGER)).lookingAt()) {
      take(Kind.INTEGER, matcher.group().replace("_", ""), matcher.end());
    } else if ((matcher = matcher(NAME)).lookingAt()) {
      take(Kind.NAME, matcher.group(), matcher.end());
    } else if (c == '"' || c == '\'') {
      string(c);
    } else if ((matcher = matcher(OPERATOR)).lookingAt()) {
      balance(matcher.group(), open);
      take(Kind.OPERATOR, matcher.group(), matcher.end());
    } else {
      throw error("unexpected char '" + Character.toString(source.codePointAt(at)) + "'");
    }
  }

  private void balance(String operator, Deque<Character> open) {
    switch (operator) {
      case "(" -> open.push(')');
      case "[" -> open.push(']');
      case "{" -> open.push('}');
      case ")", "]", "}" -> {
        if (open.isEmpty()) {
          throw error("unexpected '" + operator + "'");
        }
        char expected = open.pop();
        if (expected != operator.charAt(0)) {
          throw error("unexpected '" + operator + "', expected '" + expected + "'");
        }
      }
      default -> {}
    }
  }

  /** A string literal, with the escapes of Python; an unknown escape stays as it is written. */
  private void string(char quote) {
    StringBuilder text = new StringBuilder();
    int i = at + 1;
    while (i < source.length() && source.charAt(i) != quote) {
      char c = source.charAt(i++);
      if (c != '\\' || i == source.length()) {
        text.append(c);
        continue;
      }
      char e = source.charAt(i++);
      switch (e) {
        case 'n' -> text.append('\n');
        case 't' -> text.append('\t');
        case 'r' -> text.append('\r');
        case 'b' -> text.append('\b');
        case 'f' -> text.append('\f');
        case 'a' -> text.append('\u0007');
        case 'v' -> text.append('\u000B');
        case '\\', '\'', '"' -> text.append(e);
        case '\n' -> {}
        case 'x' -> i = hex(i, 2, text);
        case 'u' -> i = hex(i, 4, text);
        case 'U' -> i = hex(i, 8, text);
        default -> {
          if (e >= '0' && e <= '7') {
            int value = e - '0';
            for (int n = 0; n < 2 && i < source.length() && digit(source.charAt(i)); n++) {
              value = value * 8 + source.charAt(i++) - '0';
            }
            text.append((char) value);
          } else {
            text.append('\\').append(e);
          }
        }
      }
    }
    if (i >= source.length()) {
      throw error("unexpected char '" + quote + "'");
    }
    take(Kind.STRING, text.toString(), i + 1);
  }

  private static boolean digit(char c) {
    return c >= '0' && c <= '7';
  }

  private int hex(int from, int digits, StringBuilder out) {
    try {
      int code = Integer.parseInt(source.substring(from, from + digits), 16);
      out.appendCodePoint(code);
      return from + digits;
    } catch (IndexOutOfBoundsException | IllegalArgumentException e) {
      throw error("a \\x, \\u or \\U in a string is not followed by a character's number");
    }
  }

  private Matcher matcher(Pattern pattern) {
    return pattern.matcher(source).region(at, source.length()).useTransparentBounds(true);
  }

  private void take(Kind kind, String text, int end) {
    add(kind, text);
    at = end;
  }

  private void add(Kind kind, String text) {
    tokens.add(new Token(kind, text, line()));
  }

  /** The line that {@link #at} is on. */
  private int line() {
    for (; counted < at; counted++) {
      if (source.charAt(counted) == '\n') {
        line++;
      }
    }
    return line;
  }

  private TemplateException error(String reason) {
    return new TemplateException(reason, line());
  }
}
