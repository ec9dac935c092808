package dev.millrace.inference.chat.jinja;

import java.math.BigInteger;
import java.util.ArrayList;
import java.util.List;
import org.jspecify.annotations.Nullable;

/** Python's arithmetic. Whole numbers stay within 64 bits; what leaves them is an error. */
final class Arithmetic {
  private Arithmetic() {}

  static @Nullable Object unary(String operator, @Nullable Object value) {
    if (value instanceof Undefined u) {
      throw u.error();
    }
    return switch (Values.number(value)) {
      case Long n -> operator.equals("-") ? exact(() -> Math.negateExact(n)) : n;
      case Double d -> operator.equals("-") ? (Object) (-d) : d;
      case null, default ->
          throw new TemplateException(
              "bad operand type for unary " + operator + ": '" + Values.typeName(value) + "'");
    };
  }

  static @Nullable Object binary(
      String operator, @Nullable Object a, @Nullable Object b, Budget budget) {
    if (operator.equals("~")) {
      String left = Values.text(a, budget);
      String right = Values.text(b, budget);
      budget.text((long) left.length() + right.length());
      return left.concat(right);
    }
    if (a instanceof Undefined u) {
      throw u.error();
    }
    if (b instanceof Undefined u) {
      throw u.error();
    }
    Number x = Values.number(a);
    Number y = Values.number(b);
    if (x != null && y != null) {
      return numbers(operator, x, y);
    }
    return switch (operator) {
      case "+" -> plus(a, b, budget);
      case "*" -> {
        if (x instanceof Long n && !(b instanceof Undefined)) {
          yield repeat(b, n, a, b, budget);
        }
        if (y instanceof Long n) {
          yield repeat(a, n, a, b, budget);
        }
        throw types(operator, a, b);
      }
      case "%" -> {
        if (a instanceof String format) {
          yield Format.apply(format, b, budget);
        }
        throw types(operator, a, b);
      }
      default -> throw types(operator.equals("**") ? "** or pow()" : operator, a, b);
    };
  }

  private static Object plus(@Nullable Object a, @Nullable Object b, Budget budget) {
    if (a instanceof String s) {
      if (b instanceof String t) {
        budget.text((long) s.length() + t.length());
        return s.concat(t);
      }
      throw new TemplateException(
          "can only concatenate str (not \"" + Values.typeName(b) + "\") to str");
    }
    if (a instanceof List<?> l
        && b instanceof List<?> m
        && l instanceof Tuple == m instanceof Tuple) {
      budget.spend((long) l.size() + m.size());
      List<@Nullable Object> both = new ArrayList<>(l);
      both.addAll(m);
      return l instanceof Tuple ? new Tuple(both) : both;
    }
    throw types("+", a, b);
  }

  private static Object repeat(
      @Nullable Object what, long times, @Nullable Object a, @Nullable Object b, Budget budget) {
    int count = (int) Math.max(0, Math.min(times, Integer.MAX_VALUE));
    if (what instanceof String s) {
      budget.text((long) s.length() * count);
      return s.repeat(count);
    }
    if (what instanceof List<?> l) {
      budget.spend((long) l.size() * count);
      List<@Nullable Object> all = new ArrayList<>();
      for (int i = 0; i < count && !l.isEmpty(); i++) {
        all.addAll(l);
      }
      return l instanceof Tuple ? new Tuple(all) : all;
    }
    throw types("*", a, b);
  }

  private static Object numbers(String operator, Number a, Number b) {
    if (a instanceof Long x && b instanceof Long y) {
      return switch (operator) {
        case "+" -> exact(() -> Math.addExact(x, y));
        case "-" -> exact(() -> Math.subtractExact(x, y));
        case "*" -> exact(() -> Math.multiplyExact(x, y));
        case "/" -> {
          checkDivisor(y == 0, "division by zero");
          yield x.doubleValue() / y;
        }
        case "//" -> {
          checkDivisor(y == 0, "integer division or modulo by zero");
          yield exact(() -> Math.floorDivExact(x, y));
        }
        case "%" -> {
          checkDivisor(y == 0, "integer modulo by zero");
          yield Math.floorMod(x, y);
        }
        default -> y < 0 ? (Object) Math.pow(x, y) : exact(() -> power(x, y));
      };
    }
    if (a instanceof BigInteger || b instanceof BigInteger) {
      throw tooLarge();
    }
    double x = a.doubleValue();
    double y = b.doubleValue();
    return switch (operator) {
      case "+" -> x + y;
      case "-" -> x - y;
      case "*" -> x * y;
      case "/" -> {
        checkDivisor(y == 0, "float division by zero");
        yield x / y;
      }
      case "//" -> {
        checkDivisor(y == 0, "float floor division by zero");
        yield Math.floor(x / y);
      }
      case "%" -> {
        checkDivisor(y == 0, "float modulo");
        double rest = x % y;
        yield rest != 0 && rest < 0 != y < 0 ? rest + y : rest;
      }
      default -> Math.pow(x, y);
    };
  }

  private static long power(long base, long exponent) {
    long result = 1;
    long square = base;
    for (long e = exponent; e > 0; e >>= 1) {
      if ((e & 1) == 1) {
        result = Math.multiplyExact(result, square);
      }
      if (e > 1) {
        square = Math.multiplyExact(square, square);
      }
    }
    return result;
  }

  private interface LongResult {
    long get();
  }

  private static Object exact(LongResult result) {
    try {
      return result.get();
    } catch (ArithmeticException e) {
      throw tooLarge();
    }
  }

  private static TemplateException tooLarge() {
    return new TemplateException("a whole number is too large to calculate with");
  }

  private static void checkDivisor(boolean zero, String message) {
    if (zero) {
      throw new TemplateException(message);
    }
  }

  private static TemplateException types(String operator, @Nullable Object a, @Nullable Object b) {
    return new TemplateException(
        "unsupported operand type(s) for "
            + operator
            + ": '"
            + Values.typeName(a)
            + "' and '"
            + Values.typeName(b)
            + "'");
  }
}
