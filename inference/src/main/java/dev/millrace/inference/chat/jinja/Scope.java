package dev.millrace.inference.chat.jinja;

import java.util.HashMap;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/** Names and their values; a name that is not here is looked for in the scope around. */
final class Scope {
  private final @Nullable Scope around;
  private final Map<String, @Nullable Object> values = new HashMap<>();

  Scope(@Nullable Scope around) {
    this.around = around;
  }

  @Nullable Object get(String name) {
    for (Scope scope = this; scope != null; scope = scope.around) {
      Object value = scope.values.get(name);
      if (value != null || scope.values.containsKey(name)) {
        return value;
      }
    }
    return new Undefined("'" + name + "' is undefined");
  }

  void set(String name, @Nullable Object value) {
    values.put(name, value);
  }
}
