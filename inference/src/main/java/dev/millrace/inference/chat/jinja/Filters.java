package dev.millrace.inference.chat.jinja;

import java.math.BigDecimal;
import java.math.RoundingMode;
import java.util.ArrayList;
import java.util.Collections;
import java.util.Comparator;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.jspecify.annotations.Nullable;

/** What stands behind a bar. */
final class Filters {
  private static final Set<String> NAMES =
      Set.of(
          "tojson",
          "trim",
          "length",
          "count",
          "join",
          "replace",
          "upper",
          "lower",
          "title",
          "capitalize",
          "first",
          "last",
          "default",
          "d",
          "items",
          "string",
          "list",
          "map",
          "select",
          "reject",
          "selectattr",
          "rejectattr",
          "dictsort",
          "sort",
          "unique",
          "reverse",
          "sum",
          "min",
          "max",
          "int",
          "float",
          "abs",
          "round",
          "indent",
          "safe",
          "escape",
          "e",
          "wordcount",
          "batch",
          "format",
          "attr");
  private static final Pattern TITLE_WORD = Pattern.compile("[-\\s({\\[<]+|[^-\\s({\\[<]+");
  private static final int MOST_INDENT = 1000;

  private Filters() {}

  static boolean known(String name) {
    return NAMES.contains(name);
  }

  static @Nullable Object apply(
      String name, @Nullable Object value, Args args, Evaluator evaluator, Budget budget) {
    return switch (name) {
      case "tojson" -> toJson(value, args, budget);
      case "length", "count" -> Values.length(value);
      case "default", "d" -> {
        boolean missing =
            value instanceof Undefined || (args.flag(1, "boolean") && !Values.truth(value));
        yield missing ? args.get(0, "default_value", "") : value;
      }
      case "first" -> end(Values.items(value, budget), true);
      case "last" -> end(Values.items(value, budget), false);
      case "items" -> {
        if (value instanceof Undefined) {
          yield new ArrayList<>();
        }
        if (!(value instanceof Map<?, ?> map)) {
          throw new TemplateException("Can only get item pairs from a mapping.");
        }
        budget.spend(map.size());
        yield Methods.items(map);
      }
      case "string" -> Values.text(value, budget);
      case "list" -> Values.items(value, budget);
      case "safe" -> value;
      case "map" -> map(value, args, evaluator, budget);
      case "select", "reject" -> {
        List<@Nullable Object> kept = new ArrayList<>();
        for (Object item : Values.items(value, budget)) {
          if (passes(item, args, 0, budget) == name.equals("select")) {
            kept.add(item);
          }
        }
        yield kept;
      }
      case "selectattr", "rejectattr" -> {
        Object attribute = args.required(0, "attribute");
        List<@Nullable Object> kept = new ArrayList<>();
        for (Object item : Values.items(value, budget)) {
          Object field = field(item, attribute, evaluator, budget);
          if (passes(field, args, 1, budget) == name.equals("selectattr")) {
            kept.add(item);
          }
        }
        yield kept;
      }
      case "sort", "unique", "min", "max", "dictsort" ->
          Sorting.apply(name, value, args, evaluator, budget);
      case "reverse" -> {
        List<@Nullable Object> items = Values.items(value, budget);
        Collections.reverse(items);
        yield value instanceof String ? concatenated(items) : items;
      }
      case "sum" -> sum(value, args, evaluator, budget);
      case "join" -> join(value, args, evaluator, budget);
      case "batch" -> batch(value, args, budget);
      case "attr" -> evaluator.attribute(value, args.text(0, "name"));
      case "int" -> toInt(value, args);
      case "float" -> toFloat(value, args);
      case "abs" -> {
        Number number = Values.number(value);
        yield number != null && number.doubleValue() < 0
            ? Arithmetic.unary("-", value)
            : Arithmetic.unary("+", value);
      }
      case "round" -> round(value, args);
      default -> ofText(name, Values.text(value, budget), args, budget);
    };
  }

  private static Object ofText(String name, String text, Args args, Budget budget) {
    budget.text(text.length());
    return switch (name) {
      case "trim" -> Methods.strip(text, args.get(0, "chars", null), true, true);
      case "replace" ->
          Methods.replace(
              text,
              Values.text(args.required(0, "old"), budget),
              Values.text(args.required(1, "new"), budget),
              args.get(2, "count", null) == null ? -1 : args.index(2, "count", -1),
              budget);
      case "upper" -> text.toUpperCase(Locale.ROOT);
      case "lower" -> text.toLowerCase(Locale.ROOT);
      case "capitalize" -> Methods.capitalize(text);
      case "title" -> {
        StringBuilder out = new StringBuilder();
        Matcher words = TITLE_WORD.matcher(text);
        while (words.find()) {
          out.append(Methods.capitalize(words.group()));
        }
        yield out.toString();
      }
      case "indent" -> indent(text, args, budget);
      case "wordcount" -> {
        Matcher words = Pattern.compile("\\w+", Pattern.UNICODE_CHARACTER_CLASS).matcher(text);
        yield words.results().count();
      }
      case "format" -> Format.apply(text, new Tuple(args.rest(0)), budget);
      default ->
          text.replace("&", "&amp;")
              .replace("<", "&lt;")
              .replace(">", "&gt;")
              .replace("'", "&#39;")
              .replace("\"", "&#34;");
    };
  }

  private static String toJson(@Nullable Object value, Args args, Budget budget) {
    Object indent = args.get(1, "indent", null);
    String level =
        indent == null
            ? null
            : indent instanceof String s
                ? s
                : " ".repeat(Math.max(0, Math.min(MOST_INDENT, Values.index(indent))));
    String item = level == null ? ", " : ",";
    String key = ": ";
    if (args.get(2, "separators", null) instanceof List<?> pair) {
      if (pair.size() != 2) {
        throw new TemplateException("tojson: separators must be two texts");
      }
      item = Values.text(pair.get(0), budget);
      key = Values.text(pair.get(1), budget);
    }
    Printer.JsonStyle style =
        new Printer.JsonStyle(
            args.flag(0, "ensure_ascii"), level, item, key, args.flag(3, "sort_keys"));
    StringBuilder out = new StringBuilder();
    Printer.json(value, style, out, budget);
    return out.toString();
  }

  private static @Nullable Object end(List<@Nullable Object> items, boolean first) {
    return items.isEmpty()
        ? new Undefined("No " + (first ? "first" : "last") + " item, sequence was empty.")
        : first ? items.getFirst() : items.getLast();
  }

  /** A field of an item by name, by index, or by a path with points. */
  static @Nullable Object field(
      @Nullable Object item, @Nullable Object attribute, Evaluator evaluator, Budget budget) {
    if (!(attribute instanceof String path)) {
      return Evaluator.item(item, attribute, budget);
    }
    Object value = item;
    for (String part : path.split("\\.", -1)) {
      boolean index =
          !part.isEmpty() && part.length() < 10 && part.chars().allMatch(c -> c >= '0' && c <= '9');
      value = Evaluator.item(value, index ? (Object) Long.parseLong(part) : part, budget);
    }
    return value;
  }

  private static List<@Nullable Object> map(
      @Nullable Object value, Args args, Evaluator evaluator, Budget budget) {
    List<@Nullable Object> mapped = new ArrayList<>();
    Object attribute = args.named().get("attribute");
    for (Object item : Values.items(value, budget)) {
      if (attribute != null) {
        Object field = field(item, attribute, evaluator, budget);
        boolean missing = field instanceof Undefined && args.named().containsKey("default");
        mapped.add(missing ? args.named().get("default") : field);
      } else {
        String filter = args.text(0, "filter");
        if (!known(filter)) {
          throw new TemplateException("No filter named '" + filter + "'.");
        }
        mapped.add(
            apply(filter, item, new Args(filter, args.rest(1), args.named()), evaluator, budget));
      }
    }
    return mapped;
  }

  /** Whether the test that stands at the given place of the arguments holds; truth without one. */
  private static boolean passes(@Nullable Object value, Args args, int place, Budget budget) {
    if (args.positional().size() <= place) {
      return Values.truth(value);
    }
    String test = args.text(place, "test");
    if (!Tests.known(test)) {
      throw new TemplateException("No test named '" + test + "'.");
    }
    budget.step();
    return Tests.holds(test, value, new Args(test, args.rest(place + 1), args.named()), budget);
  }

  private static String join(
      @Nullable Object value, Args args, Evaluator evaluator, Budget budget) {
    String separator = Values.text(args.get(0, "d", ""), budget);
    Object attribute = args.get(1, "attribute", null);
    StringBuilder out = new StringBuilder();
    boolean first = true;
    for (Object item : Values.items(value, budget)) {
      Object part = attribute == null ? item : field(item, attribute, evaluator, budget);
      String text = Values.text(part, budget);
      budget.text((long) text.length() + separator.length());
      budget.checkLength((long) out.length() + text.length() + separator.length());
      out.append(first ? "" : separator).append(text);
      first = false;
    }
    return out.toString();
  }

  private static String concatenated(List<@Nullable Object> items) {
    StringBuilder out = new StringBuilder();
    items.forEach(out::append);
    return out.toString();
  }

  private static @Nullable Object sum(
      @Nullable Object value, Args args, Evaluator evaluator, Budget budget) {
    Object attribute = args.get(0, "attribute", null);
    Object sum = args.get(1, "start", 0L);
    for (Object item : Values.items(value, budget)) {
      Object part = attribute == null ? item : field(item, attribute, evaluator, budget);
      sum = Arithmetic.binary("+", sum, part, budget);
    }
    return sum;
  }

  private static List<@Nullable Object> batch(@Nullable Object value, Args args, Budget budget) {
    int size = Math.max(1, Values.index(args.required(0, "linecount")));
    List<@Nullable Object> batches = new ArrayList<>();
    List<@Nullable Object> items = Values.items(value, budget);
    for (int from = 0; from < items.size(); from += Math.min(size, items.size())) {
      batches.add(
          new ArrayList<>(items.subList(from, (int) Math.min(items.size(), (long) from + size))));
    }
    return batches;
  }

  private static String indent(String text, Args args, Budget budget) {
    Object width = args.get(0, "width", 4L);
    String by =
        width instanceof String s
            ? s
            : " ".repeat(Math.max(0, Math.min(MOST_INDENT, Values.index(width))));
    boolean first = args.flag(1, "first");
    boolean blank = args.flag(2, "blank");
    String[] lines = text.split("\n", -1);
    budget.text(text.length() + (long) lines.length * by.length());
    StringBuilder out = new StringBuilder();
    for (int i = 0; i < lines.length; i++) {
      boolean indented = i == 0 ? first : blank || !lines[i].isEmpty();
      out.append(i == 0 ? "" : "\n").append(indented ? by : "").append(lines[i]);
    }
    return out.toString();
  }

  private static @Nullable Object toInt(@Nullable Object value, Args args) {
    Object otherwise = args.get(0, "default", 0L);
    if (value instanceof Undefined u) {
      throw u.error();
    }
    if (value instanceof String s) {
      try {
        String digits = Methods.strip(s, null, true, true).replace("_", "");
        int base = args.index(1, "base", 10);
        return digits.contains(".") || digits.contains("e")
            ? (long) Double.parseDouble(digits)
            : Long.parseLong(digits, base);
      } catch (NumberFormatException e) {
        return otherwise;
      }
    }
    return switch (Values.number(value)) {
      case Double d when Double.isNaN(d) || Double.isInfinite(d) -> otherwise;
      case Double d -> d.longValue();
      case null -> otherwise;
      case Number n -> n;
    };
  }

  private static @Nullable Object toFloat(@Nullable Object value, Args args) {
    Object otherwise = args.get(0, "default", 0.0);
    if (value instanceof Undefined u) {
      throw u.error();
    }
    if (value instanceof String s) {
      try {
        return Double.parseDouble(Methods.strip(s, null, true, true));
      } catch (NumberFormatException e) {
        return otherwise;
      }
    }
    Number number = Values.number(value);
    return number == null ? otherwise : (Object) number.doubleValue();
  }

  private static Object round(@Nullable Object value, Args args) {
    Number number = Values.number(value);
    if (number == null) {
      throw new TemplateException(
          "type " + Values.typeName(value) + " doesn't define __round__ method");
    }
    int precision = Math.max(-300, Math.min(300, args.index(0, "precision", 0)));
    String method = args.text(1, "method", "common");
    RoundingMode mode =
        switch (method) {
          case "common" -> RoundingMode.HALF_EVEN;
          case "ceil" -> RoundingMode.CEILING;
          case "floor" -> RoundingMode.FLOOR;
          default -> throw new TemplateException("method must be common, ceil or floor");
        };
    double d = number.doubleValue();
    if (Double.isNaN(d) || Double.isInfinite(d)) {
      return d;
    }
    if (number instanceof Long n && method.equals("common") && precision >= 0) {
      return n;
    }
    return new BigDecimal(d).setScale(precision, mode).doubleValue();
  }

  /** sort, unique, min, max and dictsort. */
  static final class Sorting {
    private Sorting() {}

    static @Nullable Object apply(
        String name, @Nullable Object value, Args args, Evaluator evaluator, Budget budget) {
      if (name.equals("dictsort")) {
        if (!(value instanceof Map<?, ?> map)) {
          throw new TemplateException("dictsort needs a mapping");
        }
        int by = args.text(1, "by", "key").equals("value") ? 1 : 0;
        List<@Nullable Object> items = Methods.items(map);
        sort(
            items,
            item ->
                folded(
                    ((Tuple) java.util.Objects.requireNonNull(item)).get(by),
                    args.flag(0, "case_sensitive")),
            args.flag(2, "reverse"),
            budget);
        return items;
      }
      // sort(reverse, case_sensitive, attribute); the others (case_sensitive, attribute)
      int first = name.equals("sort") ? 1 : 0;
      boolean exact = args.flag(first, "case_sensitive");
      Object attribute = args.get(first + 1, "attribute", null);
      Key key =
          item ->
              folded(attribute == null ? item : field(item, attribute, evaluator, budget), exact);
      List<@Nullable Object> items = Values.items(value, budget);
      if (name.equals("sort")) {
        sort(items, key, args.flag(0, "reverse"), budget);
        return items;
      }
      if (name.equals("unique")) {
        List<@Nullable Object> kept = new ArrayList<>();
        Set<@Nullable Object> seen = new java.util.HashSet<>();
        for (Object item : items) {
          if (seen.add(Values.key(key.of(item)))) {
            kept.add(item);
          }
        }
        return kept;
      }
      if (items.isEmpty()) {
        return new Undefined("No aggregated item, sequence was empty.");
      }
      Object best = items.get(0);
      for (Object item : items) {
        int order = Values.compare(key.of(item), key.of(best), "<", budget);
        if (name.equals("min") ? order < 0 : order == 1) {
          best = item;
        }
      }
      return best;
    }

    private interface Key {
      @Nullable Object of(@Nullable Object item);
    }

    private static void sort(
        List<@Nullable Object> items, Key key, boolean reverse, Budget budget) {
      Comparator<@Nullable Object> order =
          (a, b) -> {
            int compared = Values.compare(key.of(a), key.of(b), "<", budget);
            // Not-a-number has no order; taking it for equal keeps the sort from failing.
            return compared == 2 ? 0 : compared;
          };
      try {
        items.sort(reverse ? Collections.reverseOrder(order) : order);
      } catch (IllegalArgumentException e) {
        throw new TemplateException("the items have no order");
      }
    }

    private static @Nullable Object folded(@Nullable Object value, boolean exact) {
      return value instanceof String s && !exact ? s.toLowerCase(Locale.ROOT) : value;
    }
  }
}
