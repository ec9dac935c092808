package dev.millrace.inference.chat.jinja;

import java.time.ZonedDateTime;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/** The functions that every chat template has. */
final class Globals {
  /** Jinja's sandbox allows no longer ranges either. */
  private static final int MOST_RANGE = 100_000;

  private Globals() {}

  static void define(Scope scope, ZonedDateTime now, Budget budget) {
    scope.set("range", (Callable) (arguments, named) -> range(arguments, budget));
    scope.set(
        "namespace",
        (Callable)
            (arguments, named) -> {
              Namespace namespace = new Namespace();
              fill(arguments).forEach((k, v) -> namespace.fields.put(String.valueOf(k), v));
              namespace.fields.putAll(named);
              return namespace;
            });
    scope.set(
        "dict",
        (Callable)
            (arguments, named) -> {
              Map<@Nullable Object, @Nullable Object> map = fill(arguments);
              map.putAll(named);
              return map;
            });
    scope.set(
        "raise_exception",
        (Callable)
            (arguments, named) -> {
              throw new TemplateException(
                  Values.text(
                      new Args("raise_exception", arguments, named).required(0, "message"),
                      budget));
            });
    scope.set(
        "strftime_now",
        (Callable)
            (arguments, named) ->
                Format.time(now, new Args("strftime_now", arguments, named).text(0, "format")));
    scope.set("joiner", (Callable) Globals::joiner);
  }

  private static Object joiner(
      List<@Nullable Object> arguments, Map<String, @Nullable Object> named) {
    String separator = new Args("joiner", arguments, named).text(0, "sep", ", ");
    boolean[] used = {false};
    return (Callable)
        (none, noneNamed) -> {
          String now = used[0] ? separator : "";
          used[0] = true;
          return now;
        };
  }

  private static Map<@Nullable Object, @Nullable Object> fill(List<@Nullable Object> arguments) {
    Map<@Nullable Object, @Nullable Object> map = new LinkedHashMap<>();
    if (!arguments.isEmpty()) {
      if (!(arguments.get(0) instanceof Map<?, ?> given)) {
        throw new TemplateException(
            "'" + Values.typeName(arguments.get(0)) + "' object is not a mapping");
      }
      map.putAll(given);
    }
    return map;
  }

  private static Object range(List<@Nullable Object> arguments, Budget budget) {
    if (arguments.isEmpty() || arguments.size() > 3) {
      throw new TemplateException("range expected 1 to 3 arguments, got " + arguments.size());
    }
    long from = arguments.size() == 1 ? 0 : Values.index(arguments.get(0));
    long to = Values.index(arguments.get(arguments.size() == 1 ? 0 : 1));
    long step = arguments.size() == 3 ? Values.index(arguments.get(2)) : 1;
    if (step == 0) {
      throw new TemplateException("range() arg 3 must not be zero");
    }
    long size = Math.max(0, (to - from + step - Long.signum(step)) / step);
    if (size > MOST_RANGE) {
      throw new TemplateException(
          "Range too big. The sandbox blocks ranges larger than MAX_RANGE (" + MOST_RANGE + ").");
    }
    budget.spend(size);
    List<@Nullable Object> items = new ArrayList<>((int) size);
    for (long i = 0; i < size; i++) {
      items.add(from + i * step);
    }
    return items;
  }
}
