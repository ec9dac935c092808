package dev.millrace.inference.chat.jinja;

import java.math.BigInteger;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/** What stands behind {@code is}. */
final class Tests {
  private static final Set<String> NAMES =
      Set.of(
          "defined",
          "undefined",
          "none",
          "string",
          "mapping",
          "iterable",
          "sequence",
          "number",
          "integer",
          "float",
          "boolean",
          "true",
          "false",
          "callable",
          "sameas",
          "in",
          "even",
          "odd",
          "divisibleby",
          "lower",
          "upper",
          "eq",
          "equalto",
          "==",
          "ne",
          "!=",
          "lt",
          "lessthan",
          "<",
          "le",
          "<=",
          "gt",
          "greaterthan",
          ">",
          "ge",
          ">=",
          "filter",
          "test");

  private Tests() {}

  static boolean known(String name) {
    return NAMES.contains(name);
  }

  static boolean holds(String name, @Nullable Object value, Args arguments, Budget budget) {
    return switch (name) {
      case "defined" -> !(value instanceof Undefined);
      case "undefined" -> value instanceof Undefined;
      case "none" -> value == null;
      case "string" -> value instanceof String;
      case "mapping" -> value instanceof Map<?, ?>;
      case "iterable", "sequence" ->
          value instanceof String
              || value instanceof List<?>
              || value instanceof Map<?, ?>
              || value instanceof Undefined;
      case "number" -> Values.number(value) != null;
      case "integer" -> value instanceof Long || value instanceof BigInteger;
      case "float" -> value instanceof Double;
      case "boolean" -> value instanceof Boolean;
      case "true" -> Boolean.TRUE.equals(value);
      case "false" -> Boolean.FALSE.equals(value);
      case "callable" -> value instanceof Callable;
      case "sameas" -> same(value, arguments.required(0, "other"));
      case "in" -> Values.contains(arguments.required(0, "seq"), value, budget);
      case "even" -> remainder(value, 2L, budget) == 0;
      case "odd" -> remainder(value, 2L, budget) == 1;
      case "divisibleby" -> remainder(value, arguments.required(0, "num"), budget) == 0;
      case "lower" -> {
        String text = Values.text(value, budget);
        yield text.equals(text.toLowerCase(java.util.Locale.ROOT))
            && !text.equals(text.toUpperCase(java.util.Locale.ROOT));
      }
      case "upper" -> {
        String text = Values.text(value, budget);
        yield text.equals(text.toUpperCase(java.util.Locale.ROOT))
            && !text.equals(text.toLowerCase(java.util.Locale.ROOT));
      }
      case "filter" -> Filters.known(Values.text(value, budget));
      case "test" -> known(Values.text(value, budget));
      default -> Evaluator.compare(operator(name), value, arguments.required(0, "other"), budget);
    };
  }

  private static String operator(String name) {
    return switch (name) {
      case "eq", "equalto" -> "==";
      case "ne" -> "!=";
      case "lt", "lessthan" -> "<";
      case "le" -> "<=";
      case "gt", "greaterthan" -> ">";
      case "ge" -> ">=";
      default -> name;
    };
  }

  /** Small values are one object in Python; here equal ones of one type are. */
  private static boolean same(@Nullable Object a, @Nullable Object b) {
    return a == b
        || (a != null && !(a instanceof List<?>) && !(a instanceof Map<?, ?>) && a.equals(b));
  }

  private static double remainder(@Nullable Object value, @Nullable Object by, Budget budget) {
    Object rest = Arithmetic.binary("%", value, by, budget);
    Number number = Values.number(rest);
    if (number == null) {
      throw new TemplateException("not a number: '" + Values.typeName(value) + "'");
    }
    return number.doubleValue();
  }
}
