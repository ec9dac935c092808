package dev.millrace.inference.chat.jinja;

import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/** The variable {@code loop} of a for statement. */
final class Loop implements Callable {
  private final List<@Nullable Object> items;
  private final int depth;
  private final @Nullable Callable recurse;
  private final Budget budget;
  private int at = -1;
  private @Nullable List<@Nullable Object> last;

  /**
   * @param depth from 1
   * @param recurse what calling the variable does in a recursive loop
   */
  Loop(List<@Nullable Object> items, int depth, @Nullable Callable recurse, Budget budget) {
    this.items = items;
    this.depth = depth;
    this.recurse = recurse;
    this.budget = budget;
  }

  void advance() {
    at++;
  }

  int depth() {
    return depth;
  }

  @Nullable Object attribute(String name) {
    return switch (name) {
      case "index" -> (long) at + 1;
      case "index0" -> (long) at;
      case "revindex" -> (long) items.size() - at;
      case "revindex0" -> (long) items.size() - at - 1;
      case "first" -> at == 0;
      case "last" -> at == items.size() - 1;
      case "length" -> (long) items.size();
      case "depth" -> (long) depth;
      case "depth0" -> (long) depth - 1;
      case "previtem" -> at == 0 ? new Undefined("there is no previous item") : items.get(at - 1);
      case "nextitem" ->
          at == items.size() - 1 ? new Undefined("there is no next item") : items.get(at + 1);
      case "cycle" ->
          (Callable)
              (arguments, named) -> {
                if (arguments.isEmpty()) {
                  throw new TemplateException("no items for cycling given");
                }
                return arguments.get(at % arguments.size());
              };
      case "changed" ->
          (Callable)
              (arguments, named) -> {
                boolean changed = last == null || !Values.equal(last, arguments, budget);
                last = arguments;
                return changed;
              };
      default -> new Undefined("'LoopContext object' has no attribute '" + name + "'");
    };
  }

  @Override
  public @Nullable Object call(
      List<@Nullable Object> arguments, Map<String, @Nullable Object> named) {
    if (recurse == null) {
      throw new TemplateException(
          "The loop must have the 'recursive' marker to be called recursively.");
    }
    return recurse.call(arguments, named);
  }
}
