package dev.millrace.inference.chat.jinja;

import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * The arguments of a call, by place or by name.
 *
 * @param function whose they are, for errors
 */
record Args(
    String function, List<@Nullable Object> positional, Map<String, @Nullable Object> named) {

  boolean has(int place, String name) {
    return place < positional.size() || named.containsKey(name);
  }

  @Nullable Object get(int place, String name, @Nullable Object otherwise) {
    if (place < positional.size()) {
      return positional.get(place);
    }
    return named.containsKey(name) ? named.get(name) : otherwise;
  }

  @Nullable Object required(int place, String name) {
    if (!has(place, name)) {
      throw new TemplateException(function + "() is missing its argument '" + name + "'");
    }
    return get(place, name, null);
  }

  String text(int place, String name) {
    return textOf(required(place, name));
  }

  String text(int place, String name, String otherwise) {
    return has(place, name) ? textOf(get(place, name, null)) : otherwise;
  }

  private String textOf(@Nullable Object value) {
    if (value instanceof String s) {
      return s;
    }
    throw value instanceof Undefined u
        ? u.error()
        : new TemplateException(
            function + "() argument must be str, not " + Values.typeName(value));
  }

  int index(int place, String name, int otherwise) {
    return has(place, name) ? Values.index(get(place, name, null)) : otherwise;
  }

  boolean flag(int place, String name) {
    return Values.truth(get(place, name, false));
  }

  /** The arguments from the given place on. */
  List<@Nullable Object> rest(int place) {
    return positional.subList(Math.min(place, positional.size()), positional.size());
  }
}
