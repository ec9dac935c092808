package dev.millrace.inference.chat.jinja;

import java.util.HashMap;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/** What {@code namespace()} makes: the one value whose attributes a template can set. */
final class Namespace {
  final Map<String, @Nullable Object> fields = new HashMap<>();
}
