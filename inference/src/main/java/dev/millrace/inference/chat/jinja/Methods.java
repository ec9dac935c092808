package dev.millrace.inference.chat.jinja;

import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/** The methods of texts, lists and dicts that templates may call; those that change are not. */
final class Methods {
  private static final Set<String> OF_TEXT =
      Set.of(
          "strip",
          "lstrip",
          "rstrip",
          "split",
          "rsplit",
          "splitlines",
          "startswith",
          "endswith",
          "upper",
          "lower",
          "title",
          "capitalize",
          "replace",
          "join",
          "find",
          "rfind",
          "index",
          "count",
          "isdigit",
          "isalpha",
          "isalnum",
          "isspace",
          "isupper",
          "islower",
          "removeprefix",
          "removesuffix");
  private static final Set<String> OF_LISTS = Set.of("index", "count");
  private static final Set<String> OF_DICTS = Set.of("get", "keys", "values", "items", "copy");
  private static final Set<String> UNSAFE_OF_LISTS =
      Set.of("append", "extend", "insert", "pop", "remove", "clear", "sort", "reverse");
  private static final Set<String> UNSAFE_OF_DICTS =
      Set.of("update", "pop", "popitem", "setdefault", "clear");

  private Methods() {}

  /** The method of that name, or null. */
  static @Nullable Callable of(@Nullable Object target, String name, Budget budget) {
    return switch (target) {
      case String text when OF_TEXT.contains(name) ->
          (arguments, named) -> {
            budget.text(text.length());
            return ofText(text, name, new Args(name, arguments, named), budget);
          };
      case List<?> list when OF_LISTS.contains(name) ->
          (arguments, named) -> ofList(list, new Args(name, arguments, named), budget);
      case List<?> list when UNSAFE_OF_LISTS.contains(name) -> unsafe(list, name);
      case Map<?, ?> map when OF_DICTS.contains(name) ->
          (arguments, named) -> {
            budget.spend(map.size());
            return ofDict(map, name, new Args(name, arguments, named));
          };
      case Map<?, ?> map when UNSAFE_OF_DICTS.contains(name) -> unsafe(map, name);
      case null, default -> null;
    };
  }

  private static Callable unsafe(Object target, String name) {
    return (arguments, named) -> {
      throw new TemplateException(
          "access to attribute '"
              + name
              + "' of '"
              + Values.typeName(target)
              + "' object is unsafe.");
    };
  }

  private static @Nullable Object ofText(String text, String name, Args args, Budget budget) {
    return switch (name) {
      case "strip" -> strip(text, args.get(0, "chars", null), true, true);
      case "lstrip" -> strip(text, args.get(0, "chars", null), true, false);
      case "rstrip" -> strip(text, args.get(0, "chars", null), false, true);
      case "split" -> split(text, args, false, budget);
      case "rsplit" -> split(text, args, true, budget);
      case "splitlines" -> splitLines(text, args.flag(0, "keepends"));
      case "startswith" -> anyOf(args, text::startsWith);
      case "endswith" -> anyOf(args, text::endsWith);
      case "upper" -> text.toUpperCase(Locale.ROOT);
      case "lower" -> text.toLowerCase(Locale.ROOT);
      case "title" -> title(text);
      case "capitalize" -> capitalize(text);
      case "replace" ->
          replace(
              text, args.text(0, "old"), args.text(1, "new"), args.index(2, "count", -1), budget);
      case "join" -> join(Values.items(args.required(0, "iterable"), budget), text, budget);
      case "find" -> position(text, text.indexOf(args.text(0, "sub")));
      case "rfind" -> position(text, text.lastIndexOf(args.text(0, "sub")));
      case "index" -> {
        int at = text.indexOf(args.text(0, "sub"));
        if (at < 0) {
          throw new TemplateException("substring not found");
        }
        yield position(text, at);
      }
      case "count" -> count(text, args.text(0, "sub"));
      case "isdigit" -> all(text, Character::isDigit);
      case "isalpha" -> all(text, Character::isLetter);
      case "isalnum" -> all(text, Character::isLetterOrDigit);
      case "isspace" -> all(text, Values::isSpace);
      case "isupper" ->
          !text.equals(text.toLowerCase(Locale.ROOT)) && text.equals(text.toUpperCase(Locale.ROOT));
      case "islower" ->
          !text.equals(text.toUpperCase(Locale.ROOT)) && text.equals(text.toLowerCase(Locale.ROOT));
      case "removeprefix" -> {
        String prefix = args.text(0, "prefix");
        yield text.startsWith(prefix) ? text.substring(prefix.length()) : text;
      }
      default -> {
        String suffix = args.text(0, "suffix");
        yield text.endsWith(suffix) ? text.substring(0, text.length() - suffix.length()) : text;
      }
    };
  }

  private static Object ofList(List<?> list, Args args, Budget budget) {
    Object wanted = args.required(0, "value");
    long count = 0;
    for (int i = 0; i < list.size(); i++) {
      if (Values.equal(list.get(i), wanted, budget)) {
        if (args.function().equals("index")) {
          return (long) i;
        }
        count++;
      }
    }
    if (args.function().equals("index")) {
      throw new TemplateException("the value is not in the list");
    }
    return count;
  }

  private static @Nullable Object ofDict(Map<?, ?> map, String name, Args args) {
    return switch (name) {
      case "get" -> {
        Object key = Values.key(args.required(0, "key"));
        yield map.containsKey(key) ? map.get(key) : args.get(1, "default", null);
      }
      case "keys" -> new ArrayList<@Nullable Object>(map.keySet());
      case "values" -> new ArrayList<@Nullable Object>(map.values());
      case "copy" -> map;
      default -> items(map);
    };
  }

  static List<@Nullable Object> items(Map<?, ?> map) {
    List<@Nullable Object> items = new ArrayList<>(map.size());
    map.forEach((key, value) -> items.add(new Tuple(java.util.Arrays.asList(key, value))));
    return items;
  }

  /**
   * @param characters which to take off, or null for white space
   */
  static String strip(String text, @Nullable Object characters, boolean left, boolean right) {
    if (characters == null) {
      String stripped = left ? Values.stripLeft(text) : text;
      return right ? Values.stripRight(stripped) : stripped;
    }
    if (!(characters instanceof String set)) {
      throw new TemplateException("strip arg must be None or str");
    }
    int from = 0;
    int to = text.length();
    while (left && from < to && set.indexOf(text.codePointAt(from)) >= 0) {
      from += Character.charCount(text.codePointAt(from));
    }
    while (right && to > from && set.indexOf(text.codePointBefore(to)) >= 0) {
      to -= Character.charCount(text.codePointBefore(to));
    }
    return text.substring(from, to);
  }

  private static List<@Nullable Object> split(
      String text, Args args, boolean fromRight, Budget budget) {
    Object separator = args.get(0, "sep", null);
    int most = args.index(1, "maxsplit", -1);
    List<@Nullable Object> parts = new ArrayList<>();
    if (separator == null) {
      if (most >= 0) {
        throw new TemplateException("split with maxsplit needs a separator here");
      }
      int from = -1;
      for (int i = 0; i <= text.length(); i++) {
        boolean space = i == text.length() || Values.isSpace(text.charAt(i));
        if (space && from >= 0) {
          parts.add(text.substring(from, i));
          from = -1;
        } else if (!space && from < 0) {
          from = i;
        }
      }
    } else {
      String by = args.text(0, "sep");
      if (by.isEmpty()) {
        throw new TemplateException("empty separator");
      }
      if (fromRight) {
        int to = text.length();
        for (int at;
            (at = text.lastIndexOf(by, to - by.length())) >= 0 && to >= by.length() && most-- != 0;
            to = at) {
          parts.addFirst(text.substring(at + by.length(), to));
        }
        parts.addFirst(text.substring(0, to));
      } else {
        int from = 0;
        for (int at; (at = text.indexOf(by, from)) >= 0 && most-- != 0; from = at + by.length()) {
          parts.add(text.substring(from, at));
        }
        parts.add(text.substring(from));
      }
    }
    budget.spend(parts.size());
    return parts;
  }

  private static List<@Nullable Object> splitLines(String text, boolean keepEnds) {
    List<@Nullable Object> lines = new ArrayList<>();
    int from = 0;
    for (int i = 0; i < text.length(); i++) {
      if ("\n\r\u000B\f\u001C\u001D\u001E\u0085\u2028\u2029".indexOf(text.charAt(i)) >= 0) {
        int end = text.startsWith("\r\n", i) ? i + 2 : i + 1;
        lines.add(text.substring(from, keepEnds ? end : i));
        from = end;
        i = end - 1;
      }
    }
    if (from < text.length()) {
      lines.add(text.substring(from));
    }
    return lines;
  }

  private static boolean anyOf(Args args, java.util.function.Predicate<String> holds) {
    if (args.required(0, "prefix") instanceof Tuple tuple) {
      return tuple.stream().anyMatch(s -> s instanceof String part && holds.test(part));
    }
    return holds.test(args.text(0, "prefix"));
  }

  /** Python's str.title(): each run of letters begins with a capital. */
  private static String title(String text) {
    StringBuilder out = new StringBuilder(text.length());
    boolean inWord = false;
    for (int i = 0; i < text.length(); i++) {
      String c = text.substring(i, i + 1);
      out.append(inWord ? c.toLowerCase(Locale.ROOT) : c.toUpperCase(Locale.ROOT));
      inWord = Character.isLetter(text.charAt(i));
    }
    return out.toString();
  }

  static String capitalize(String text) {
    if (text.isEmpty()) {
      return text;
    }
    int first = Character.charCount(text.codePointAt(0));
    return text.substring(0, first).toUpperCase(Locale.ROOT)
        + text.substring(first).toLowerCase(Locale.ROOT);
  }

  /**
   * @param most how often at most, or -1
   */
  static String replace(String text, String old, String with, int most, Budget budget) {
    long times = Math.min(count(text, old), most < 0 ? Long.MAX_VALUE : most);
    budget.text(text.length() + Math.max(0, times * ((long) with.length() - old.length())));
    StringBuilder out = new StringBuilder();
    int from = 0;
    for (long n = 0; n < times; n++) {
      // An empty text is before each character and at the end.
      int at = old.isEmpty() ? (n == 0 ? 0 : from + 1) : text.indexOf(old, from);
      out.append(text, from, at).append(with);
      from = at + old.length();
    }
    return out.append(text, from, text.length()).toString();
  }

  private static long count(String text, String part) {
    if (part.isEmpty()) {
      return text.length() + 1L;
    }
    long count = 0;
    for (int at = text.indexOf(part); at >= 0; at = text.indexOf(part, at + part.length())) {
      count++;
    }
    return count;
  }

  private static String join(List<@Nullable Object> items, String separator, Budget budget) {
    StringBuilder out = new StringBuilder();
    for (int i = 0; i < items.size(); i++) {
      if (!(items.get(i) instanceof String s)) {
        throw new TemplateException(
            "sequence item "
                + i
                + ": expected str instance, "
                + Values.typeName(items.get(i))
                + " found");
      }
      budget.checkLength((long) out.length() + separator.length() + s.length());
      out.append(i == 0 ? "" : separator).append(s);
    }
    budget.text(out.length());
    return out.toString();
  }

  private static long position(String text, int at) {
    return at < 0 ? -1 : text.codePointCount(0, at);
  }

  private static boolean all(String text, java.util.function.IntPredicate holds) {
    return !text.isEmpty() && text.codePoints().allMatch(holds);
  }
}
