package dev.millrace.inference.chat.jinja;

import java.math.BigDecimal;
import java.math.BigInteger;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * Python's rules for the values of a template. A value is null (None), Boolean, Long or BigInteger
 * (int), Double, String, List, {@link Tuple}, Map, {@link Undefined}, {@link Callable}, {@link
 * Namespace} or {@link Loop}. Texts are counted and cut by code points.
 */
final class Values {
  private static final BigInteger LONG_MIN = BigInteger.valueOf(Long.MIN_VALUE);
  private static final BigInteger LONG_MAX = BigInteger.valueOf(Long.MAX_VALUE);

  private Values() {}

  /** The value of an integer of any size. */
  static Object integer(BigInteger value) {
    return value.compareTo(LONG_MIN) >= 0 && value.compareTo(LONG_MAX) <= 0
        ? (Object) value.longValue()
        : value;
  }

  static String typeName(@Nullable Object value) {
    return switch (value) {
      case null -> "NoneType";
      case Boolean b -> "bool";
      case Long n -> "int";
      case BigInteger n -> "int";
      case Double d -> "float";
      case String s -> "str";
      case Tuple t -> "tuple";
      case List<?> l -> "list";
      case Map<?, ?> m -> "dict";
      case Undefined u -> "Undefined";
      case Namespace n -> "Namespace";
      case Loop l -> "LoopContext";
      default -> "function";
    };
  }

  static boolean truth(@Nullable Object value) {
    return switch (value) {
      case null -> false;
      case Boolean b -> b;
      case Long n -> n != 0;
      case Double d -> d != 0;
      case String s -> !s.isEmpty();
      case List<?> l -> !l.isEmpty();
      case Map<?, ?> m -> !m.isEmpty();
      case Undefined u -> false;
      default -> true;
    };
  }

  /** Python's str(). */
  static String text(@Nullable Object value, Budget budget) {
    if (value instanceof String s) {
      return s;
    }
    if (value instanceof Undefined) {
      return "";
    }
    StringBuilder out = new StringBuilder();
    Printer.repr(value, out, budget);
    return out.toString();
  }

  /** The value as a number for arithmetic, or null if it is none; booleans are 0 and 1. */
  static @Nullable Number number(@Nullable Object value) {
    return switch (value) {
      case Boolean b -> b ? 1L : 0L;
      case Long n -> n;
      case BigInteger n -> n;
      case Double d -> d;
      case null, default -> null;
    };
  }

  /** An integer that an index, a width or a count can be. */
  static int index(@Nullable Object value) {
    if (value instanceof Undefined undefined) {
      throw undefined.error();
    }
    Number number = number(value);
    if (number instanceof Long n) {
      return (int) Math.max(Integer.MIN_VALUE, Math.min(Integer.MAX_VALUE, n));
    }
    throw new TemplateException(
        "'" + typeName(value) + "' object cannot be interpreted as an integer");
  }

  static boolean equal(@Nullable Object a, @Nullable Object b, Budget budget) {
    budget.step();
    Number x = number(a);
    Number y = number(b);
    if (x != null && y != null) {
      return compareNumbers(x, y) == 0;
    }
    if (a instanceof String s && b instanceof String t) {
      return s.equals(t);
    }
    if (a instanceof Undefined && b instanceof Undefined) {
      return true;
    }
    if (a instanceof List<?> l && b instanceof List<?> m) {
      return l instanceof Tuple == m instanceof Tuple && equalItems(l, m, budget);
    }
    if (a instanceof Map<?, ?> l && b instanceof Map<?, ?> m) {
      return l.size() == m.size() && equalEntries(l, m, budget);
    }
    return a == b;
  }

  private static boolean equalItems(List<?> a, List<?> b, Budget budget) {
    if (a.size() != b.size()) {
      return false;
    }
    budget.enter();
    boolean equal = true;
    for (int i = 0; i < a.size() && equal; i++) {
      equal = equal(a.get(i), b.get(i), budget);
    }
    budget.leave();
    return equal;
  }

  private static boolean equalEntries(Map<?, ?> a, Map<?, ?> b, Budget budget) {
    budget.enter();
    boolean equal = true;
    for (Map.Entry<?, ?> entry : a.entrySet()) {
      equal =
          equal
              && b.containsKey(entry.getKey())
              && equal(entry.getValue(), b.get(entry.getKey()), budget);
    }
    budget.leave();
    return equal;
  }

  private static int compareNumbers(Number a, Number b) {
    if (a instanceof Long x && b instanceof Long y) {
      return Long.compare(x, y);
    }
    if (a instanceof Double x && b instanceof Double y) {
      return x < y ? -1 : x > y ? 1 : x.doubleValue() == y ? 0 : 2;
    }
    double x = a.doubleValue();
    double y = b.doubleValue();
    if (Double.isNaN(x) || Double.isNaN(y)) {
      return 2;
    }
    if (Double.isInfinite(x) || Double.isInfinite(y)) {
      return Double.compare(x, y);
    }
    return exact(a).compareTo(exact(b));
  }

  private static BigDecimal exact(Number number) {
    return switch (number) {
      case Double d -> new BigDecimal(d);
      case BigInteger n -> new BigDecimal(n);
      default -> BigDecimal.valueOf(number.longValue());
    };
  }

  /**
   * Orders two values as Python's &lt; does: below 0, 0 or above 0.
   *
   * @param operator for the error where they have no order
   */
  static int compare(@Nullable Object a, @Nullable Object b, String operator, Budget budget) {
    budget.step();
    Number x = number(a);
    Number y = number(b);
    if (x != null && y != null) {
      return compareNumbers(x, y);
    }
    if (a instanceof String s && b instanceof String t) {
      return compareText(s, t);
    }
    if (a instanceof List<?> l
        && b instanceof List<?> m
        && l instanceof Tuple == m instanceof Tuple) {
      for (int i = 0; i < Math.min(l.size(), m.size()); i++) {
        if (!equal(l.get(i), m.get(i), budget)) {
          return compare(l.get(i), m.get(i), operator, budget);
        }
      }
      return Integer.compare(l.size(), m.size());
    }
    if (a instanceof Undefined u) {
      throw u.error();
    }
    if (b instanceof Undefined u) {
      throw u.error();
    }
    throw new TemplateException(
        "'"
            + operator
            + "' not supported between instances of '"
            + typeName(a)
            + "' and '"
            + typeName(b)
            + "'");
  }

  /** By code points, which UTF-16 does not keep the order of. */
  private static int compareText(String a, String b) {
    for (int i = 0; i < Math.min(a.length(), b.length()); i++) {
      if (a.charAt(i) != b.charAt(i)) {
        boolean x = Character.isSurrogate(a.charAt(i));
        boolean y = Character.isSurrogate(b.charAt(i));
        return x != y ? (x ? 1 : -1) : Character.compare(a.charAt(i), b.charAt(i));
      }
    }
    return Integer.compare(a.length(), b.length());
  }

  /** Python's {@code item in container}. */
  static boolean contains(@Nullable Object container, @Nullable Object item, Budget budget) {
    switch (container) {
      case String s -> {
        if (!(item instanceof String part)) {
          throw item instanceof Undefined u
              ? u.error()
              : new TemplateException(
                  "'in <string>' requires string as left operand, not " + typeName(item));
        }
        budget.text(s.length());
        return s.contains(part);
      }
      case Map<?, ?> m -> {
        return m.containsKey(key(item));
      }
      case List<?> l -> {
        for (Object element : l) {
          if (equal(element, item, budget)) {
            return true;
          }
        }
        return false;
      }
      case Undefined u -> {
        return false;
      }
      case null, default ->
          throw new TemplateException(
              "argument of type '" + typeName(container) + "' is not iterable");
    }
  }

  /** A value as the key of a dict: equal numbers are one key. */
  static @Nullable Object key(@Nullable Object value) {
    return switch (value) {
      case Double d when d == Math.rint(d) && Math.abs(d) < 1e15 -> (Object) d.longValue();
      case Undefined u -> throw u.error();
      case List<?> l when !(l instanceof Tuple) ->
          throw new TemplateException("unhashable type: 'list'");
      case Map<?, ?> m -> throw new TemplateException("unhashable type: 'dict'");
      case null, default -> value;
    };
  }

  /** Puts an entry as Python does: an equal key stays as it is and gets the new value. */
  static void put(
      Map<@Nullable Object, @Nullable Object> map, @Nullable Object key, @Nullable Object value) {
    Object put = key(key);
    if (put instanceof Boolean b && map.containsKey(b ? 1L : 0L)) {
      put = b ? 1L : 0L;
    } else if (put instanceof Long n && (n == 0 || n == 1) && map.containsKey(n == 1)) {
      put = n == 1;
    }
    map.put(put, value);
  }

  /** What a loop over the value goes through. */
  static List<@Nullable Object> items(@Nullable Object value, Budget budget) {
    return switch (value) {
      case List<?> l -> {
        budget.spend(l.size());
        yield new ArrayList<@Nullable Object>(l);
      }
      case Map<?, ?> m -> {
        budget.spend(m.size());
        yield new ArrayList<@Nullable Object>(m.keySet());
      }
      case String s -> {
        budget.spend(s.length());
        List<@Nullable Object> characters = new ArrayList<>(s.length());
        s.codePoints().forEach(c -> characters.add(Character.toString(c)));
        yield characters;
      }
      case Undefined u -> new ArrayList<>();
      case null, default ->
          throw new TemplateException("'" + typeName(value) + "' object is not iterable");
    };
  }

  static long length(@Nullable Object value) {
    return switch (value) {
      case String s -> s.codePointCount(0, s.length());
      case List<?> l -> l.size();
      case Map<?, ?> m -> m.size();
      case Undefined u -> 0;
      case null, default ->
          throw new TemplateException("object of type '" + typeName(value) + "' has no len()");
    };
  }

  /** Python's slice of a text, a list or a tuple; null stands for what is left out. */
  static Object slice(
      @Nullable Object value,
      @Nullable Object from,
      @Nullable Object to,
      @Nullable Object step,
      Budget budget) {
    if (value instanceof Undefined u) {
      throw u.error();
    }
    if (!(value instanceof String) && !(value instanceof List<?>)) {
      throw new TemplateException("'" + typeName(value) + "' object is not subscriptable");
    }
    int by = step == null ? 1 : index(step);
    if (by == 0) {
      throw new TemplateException("slice step cannot be zero");
    }
    List<@Nullable Object> all = items(value, budget);
    int size = all.size();
    int start = from == null ? (by > 0 ? 0 : size - 1) : bound(index(from), size, by);
    int end = to == null ? (by > 0 ? size : -1) : bound(index(to), size, by);
    List<@Nullable Object> part = new ArrayList<>();
    for (long i = start; by > 0 ? i < end : i > end; i += by) {
      part.add(all.get((int) i));
    }
    if (value instanceof String) {
      StringBuilder text = new StringBuilder();
      part.forEach(text::append);
      return text.toString();
    }
    return value instanceof Tuple ? new Tuple(part) : part;
  }

  private static int bound(int index, int size, int step) {
    int at = index < 0 ? index + size : index;
    return step > 0 ? Math.max(0, Math.min(at, size)) : Math.max(-1, Math.min(at, size - 1));
  }

  /** Python's white space: Unicode's, and the four separators of ASCII. */
  static boolean isSpace(int c) {
    return Character.isWhitespace(c) || Character.isSpaceChar(c) || c == 0x85;
  }

  /** Whether a text is white space, and not empty. */
  static boolean isSpace(String text) {
    return !text.isEmpty() && text.chars().allMatch(Values::isSpace);
  }

  static String stripLeft(String text) {
    int i = 0;
    while (i < text.length() && isSpace(text.charAt(i))) {
      i++;
    }
    return text.substring(i);
  }

  static String stripRight(String text) {
    int i = text.length();
    while (i > 0 && isSpace(text.charAt(i - 1))) {
      i--;
    }
    return text.substring(0, i);
  }
}
