package dev.millrace.inference.chat.jinja;

import java.math.BigDecimal;
import java.math.BigInteger;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/** Values as Python's repr() and json.dumps() write them. */
final class Printer {
  private Printer() {}

  static void repr(@Nullable Object value, StringBuilder out, Budget budget) {
    budget.enter();
    switch (value) {
      case null -> out.append("None");
      case Boolean b -> out.append(b ? "True" : "False");
      case Long n -> out.append(n.longValue());
      case BigInteger n -> out.append(n);
      case Double d -> out.append(number(d));
      case String s -> {
        budget.text(s.length());
        quoted(s, out);
      }
      case Tuple t -> {
        list("(", t, t.size() == 1 ? ",)" : ")", out, budget);
      }
      case List<?> l -> list("[", l, "]", out, budget);
      case Map<?, ?> m -> {
        String separator = "{";
        for (Map.Entry<?, ?> entry : m.entrySet()) {
          out.append(separator);
          repr(entry.getKey(), out, budget);
          out.append(": ");
          repr(entry.getValue(), out, budget);
          separator = ", ";
        }
        out.append(m.isEmpty() ? "{}" : "}");
      }
      case Undefined u -> out.append("Undefined");
      default -> out.append('<').append(Values.typeName(value)).append('>');
    }
    budget.step();
    budget.checkLength(out.length());
    budget.leave();
  }

  private static void list(
      String begin, List<?> items, String end, StringBuilder out, Budget budget) {
    out.append(begin);
    for (int i = 0; i < items.size(); i++) {
      out.append(i == 0 ? "" : ", ");
      repr(items.get(i), out, budget);
    }
    out.append(end);
  }

  private static void quoted(String text, StringBuilder out) {
    char quote = text.indexOf('\'') >= 0 && text.indexOf('"') < 0 ? '"' : '\'';
    out.append(quote);
    text.codePoints()
        .forEach(
            c -> {
              switch (c) {
                case '\n' -> out.append("\\n");
                case '\r' -> out.append("\\r");
                case '\t' -> out.append("\\t");
                case '\\' -> out.append("\\\\");
                default -> {
                  if (c == quote) {
                    out.append('\\').append(quote);
                  } else if (prints(c)) {
                    out.appendCodePoint(c);
                  } else {
                    out.append(
                        String.format(
                            c < 0x100 ? "\\x%02x" : c < 0x10000 ? "\\u%04x" : "\\U%08x", c));
                  }
                }
              }
            });
    out.append(quote);
  }

  private static boolean prints(int c) {
    return switch (Character.getType(c)) {
      case Character.CONTROL,
          Character.FORMAT,
          Character.SURROGATE,
          Character.UNASSIGNED,
          Character.LINE_SEPARATOR,
          Character.PARAGRAPH_SEPARATOR ->
          false;
      // Private use does not print in Python, but marks of special tokens must stay whole.
      case Character.SPACE_SEPARATOR -> c == ' ';
      default -> true;
    };
  }

  /** The shortest digits that read back as the same number, in Python's notation. */
  static String number(double d) {
    if (Double.isNaN(d) || Double.isInfinite(d)) {
      return Double.isNaN(d) ? "nan" : d > 0 ? "inf" : "-inf";
    }
    if (d == 0) {
      return 1 / d < 0 ? "-0.0" : "0.0";
    }
    BigDecimal shortest = new BigDecimal(Double.toString(d)).stripTrailingZeros();
    String digits = shortest.unscaledValue().abs().toString();
    int exponent = digits.length() - 1 - shortest.scale();
    String sign = d < 0 ? "-" : "";
    if (exponent >= -4 && exponent < 16) {
      String plain = shortest.abs().toPlainString();
      return sign + plain + (plain.indexOf('.') < 0 ? ".0" : "");
    }
    String mantissa = digits.length() == 1 ? digits : digits.charAt(0) + "." + digits.substring(1);
    return sign + mantissa + String.format("e%s%02d", exponent < 0 ? "-" : "+", Math.abs(exponent));
  }

  /**
   * How JSON is written.
   *
   * @param indent what one level is indented by, or null for one line
   */
  record JsonStyle(
      boolean ascii, @Nullable String indent, String item, String key, boolean sorted) {}

  static void json(@Nullable Object value, JsonStyle style, StringBuilder out, Budget budget) {
    json(value, style, "\n", out, budget);
  }

  private static void json(
      @Nullable Object value, JsonStyle style, String line, StringBuilder out, Budget budget) {
    budget.enter();
    budget.step();
    switch (value) {
      case null -> out.append("null");
      case Boolean b -> out.append(b.booleanValue());
      case Long n -> out.append(n.longValue());
      case BigInteger n -> out.append(n);
      case Double d ->
          out.append(
              Double.isNaN(d)
                  ? "NaN"
                  : Double.isInfinite(d) ? (d > 0 ? "Infinity" : "-Infinity") : number(d));
      case String s -> {
        budget.text(s.length());
        jsonText(s, style.ascii(), out);
      }
      case List<?> l -> jsonList(l, style, line, out, budget);
      case Map<?, ?> m -> jsonMap(m, style, line, out, budget);
      default ->
          throw new TemplateException(
              "Object of type " + Values.typeName(value) + " is not JSON serializable");
    }
    budget.checkLength(out.length());
    budget.leave();
  }

  private static void jsonList(
      List<?> items, JsonStyle style, String line, StringBuilder out, Budget budget) {
    String inner = style.indent() == null ? "" : line + style.indent();
    String separator = "[" + inner;
    for (Object item : items) {
      out.append(separator);
      json(item, style, inner, out, budget);
      separator = style.item() + inner;
    }
    out.append(items.isEmpty() ? "[]" : style.indent() == null ? "]" : line + "]");
  }

  private static void jsonMap(
      Map<?, ?> map, JsonStyle style, String line, StringBuilder out, Budget budget) {
    List<Map.Entry<?, ?>> entries = new ArrayList<>(map.entrySet());
    if (style.sorted()) {
      entries.sort(
          Comparator.comparing(Map.Entry::getKey, (a, b) -> Values.compare(a, b, "<", budget)));
    }
    String inner = style.indent() == null ? "" : line + style.indent();
    String separator = "{" + inner;
    for (Map.Entry<?, ?> entry : entries) {
      out.append(separator);
      jsonText(jsonKey(entry.getKey()), style.ascii(), out);
      out.append(style.key());
      json(entry.getValue(), style, inner, out, budget);
      separator = style.item() + inner;
    }
    out.append(entries.isEmpty() ? "{}" : style.indent() == null ? "}" : line + "}");
  }

  private static String jsonKey(@Nullable Object key) {
    return switch (key) {
      case null -> "null";
      case String s -> s;
      case Boolean b -> b.toString();
      case Long n -> n.toString();
      case BigInteger n -> n.toString();
      case Double d -> number(d);
      default ->
          throw new TemplateException(
              "keys must be str, int, float, bool or None, not " + Values.typeName(key));
    };
  }

  private static void jsonText(String text, boolean ascii, StringBuilder out) {
    out.append('"');
    for (int i = 0; i < text.length(); i++) {
      char c = text.charAt(i);
      switch (c) {
        case '"' -> out.append("\\\"");
        case '\\' -> out.append("\\\\");
        case '\n' -> out.append("\\n");
        case '\r' -> out.append("\\r");
        case '\t' -> out.append("\\t");
        case '\b' -> out.append("\\b");
        case '\f' -> out.append("\\f");
        default -> {
          if (c < 0x20 || (ascii && c > 0x7E)) {
            out.append(String.format("\\u%04x", (int) c));
          } else {
            out.append(c);
          }
        }
      }
    }
    out.append('"');
  }
}
