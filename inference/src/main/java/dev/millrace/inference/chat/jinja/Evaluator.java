package dev.millrace.inference.chat.jinja;

import dev.millrace.inference.chat.jinja.Node.Arguments;
import dev.millrace.inference.chat.jinja.Node.Expr;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/** Values of expressions. For one rendering and one thread. */
final class Evaluator {
  private final Budget budget;

  Evaluator(Budget budget) {
    this.budget = budget;
  }

  @Nullable Object value(Expr expression, Scope scope) {
    budget.enter();
    budget.step();
    Object value = compute(expression, scope);
    budget.leave();
    return value;
  }

  private @Nullable Object compute(Expr expression, Scope scope) {
    return switch (expression) {
      case Node.Literal literal -> literal.value();
      case Node.Name name -> scope.get(name.name());
      case Node.Items items -> {
        List<@Nullable Object> values = new ArrayList<>();
        for (Expr item : items.items()) {
          values.add(value(item, scope));
        }
        yield items.tuple() ? new Tuple(values) : values;
      }
      case Node.Dict dict -> {
        Map<@Nullable Object, @Nullable Object> map = new LinkedHashMap<>();
        for (int i = 0; i < dict.keys().size(); i++) {
          Values.put(map, value(dict.keys().get(i), scope), value(dict.values().get(i), scope));
        }
        yield map;
      }
      case Node.Unary unary -> unary(unary, scope);
      case Node.Binary binary -> binary(binary, scope);
      case Node.Compare compare -> compare(compare, scope);
      case Node.Condition condition -> {
        if (Values.truth(value(condition.test(), scope))) {
          yield value(condition.then(), scope);
        }
        yield condition.otherwise() == null
            ? new Undefined("the inline if-expression evaluated to false and no else was given")
            : value(condition.otherwise(), scope);
      }
      case Node.Attribute attribute ->
          attribute(value(attribute.target(), scope), attribute.name());
      case Node.Item item -> item(value(item.target(), scope), value(item.index(), scope), budget);
      case Node.Slice slice ->
          Values.slice(
              value(slice.target(), scope),
              slice.from() == null ? null : value(slice.from(), scope),
              slice.to() == null ? null : value(slice.to(), scope),
              slice.step() == null ? null : value(slice.step(), scope),
              budget);
      case Node.Call call -> call(call, scope, null);
      case Node.Filter filter -> {
        Expr target = filter.target();
        yield filter(filter, target == null ? null : value(target, scope), scope);
      }
      case Node.Test test -> {
        boolean holds =
            Tests.holds(
                test.name(),
                value(test.target(), scope),
                arguments(test.name(), test.arguments(), scope),
                budget);
        yield holds != test.negated();
      }
    };
  }

  private @Nullable Object unary(Node.Unary unary, Scope scope) {
    Object operand = value(unary.operand(), scope);
    return unary.operator().equals("not")
        ? (Object) !Values.truth(operand)
        : Arithmetic.unary(unary.operator(), operand);
  }

  private @Nullable Object binary(Node.Binary binary, Scope scope) {
    Object left = value(binary.left(), scope);
    if (binary.operator().equals("and")) {
      return Values.truth(left) ? value(binary.right(), scope) : left;
    }
    if (binary.operator().equals("or")) {
      return Values.truth(left) ? left : value(binary.right(), scope);
    }
    return Arithmetic.binary(binary.operator(), left, value(binary.right(), scope), budget);
  }

  private boolean compare(Node.Compare compare, Scope scope) {
    Object left = value(compare.first(), scope);
    for (int i = 0; i < compare.operators().size(); i++) {
      Object right = value(compare.operands().get(i), scope);
      if (!compare(compare.operators().get(i), left, right, budget)) {
        return false;
      }
      left = right;
    }
    return true;
  }

  static boolean compare(String operator, @Nullable Object a, @Nullable Object b, Budget budget) {
    // Not-a-number compares as 2, which is in no order.
    return switch (operator) {
      case "==" -> Values.equal(a, b, budget);
      case "!=" -> !Values.equal(a, b, budget);
      case "in" -> Values.contains(b, a, budget);
      case "not in" -> !Values.contains(b, a, budget);
      case "<" -> Values.compare(a, b, "<", budget) < 0;
      case "<=" -> Values.compare(a, b, "<=", budget) <= 0;
      case ">" -> Values.compare(a, b, ">", budget) == 1;
      default -> {
        int order = Values.compare(a, b, ">=", budget);
        yield order == 0 || order == 1;
      }
    };
  }

  /** Python's attribute, then the item of that name. */
  @Nullable Object attribute(@Nullable Object target, String name) {
    if (target instanceof Undefined u) {
      throw u.error();
    }
    if (name.startsWith("_")) {
      return new Undefined(
          "access to attribute '"
              + name
              + "' of '"
              + Values.typeName(target)
              + "' object is unsafe.");
    }
    if (target instanceof Loop loop) {
      return loop.attribute(name);
    }
    Callable method = Methods.of(target, name, budget);
    if (method != null) {
      return method;
    }
    return itemOrUndefined(target, name);
  }

  /** Python's item, then the attribute of that name. */
  static @Nullable Object item(@Nullable Object target, @Nullable Object index, Budget budget) {
    if (target instanceof Undefined u) {
      throw u.error();
    }
    if (index instanceof Undefined u) {
      throw u.error();
    }
    if (target instanceof List<?> list && Values.number(index) instanceof Long n) {
      long at = n < 0 ? n + list.size() : n;
      return at >= 0 && at < list.size()
          ? list.get((int) at)
          : new Undefined(Values.typeName(target) + " object has no element " + n);
    }
    if (target instanceof String text && Values.number(index) instanceof Long n) {
      int length = text.codePointCount(0, text.length());
      budget.text(text.length());
      long at = n < 0 ? n + length : n;
      return at >= 0 && at < length
          ? Character.toString(text.codePointAt(text.offsetByCodePoints(0, (int) at)))
          : new Undefined("str object has no element " + n);
    }
    if (target instanceof Map<?, ?> || target instanceof Namespace || index instanceof String) {
      Object found = itemOrUndefined(target, Values.key(index));
      if (found instanceof Undefined && index instanceof String name) {
        Callable method = name.startsWith("_") ? null : Methods.of(target, name, budget);
        return method == null ? found : method;
      }
      return found;
    }
    throw new TemplateException(
        target == null || !(target instanceof List<?> || target instanceof String)
            ? "'" + Values.typeName(target) + "' object is not subscriptable"
            : Values.typeName(target)
                + " indices must be integers or slices, not "
                + Values.typeName(index));
  }

  private static @Nullable Object itemOrUndefined(@Nullable Object target, @Nullable Object key) {
    if (target instanceof Map<?, ?> map && map.containsKey(key)) {
      return map.get(key);
    }
    if (target instanceof Namespace namespace && namespace.fields.containsKey(key)) {
      return namespace.fields.get(key);
    }
    String type = target == null ? "'None'" : "'" + Values.typeName(target) + " object'";
    return new Undefined(type + " has no attribute '" + key + "'");
  }

  /**
   * @param caller the body of a call block, or null
   */
  @Nullable Object call(Node.Call call, Scope scope, @Nullable Callable caller) {
    Object target = value(call.target(), scope);
    if (target instanceof Undefined u) {
      throw u.error();
    }
    if (!(target instanceof Callable callable)) {
      throw new TemplateException("'" + Values.typeName(target) + "' object is not callable");
    }
    Args arguments = arguments("call", call.arguments(), scope);
    if (caller != null) {
      arguments.named().put("caller", caller);
    }
    try {
      return callable.call(arguments.positional(), arguments.named());
    } catch (TemplateException e) {
      throw e.at(call.line());
    }
  }

  private @Nullable Object filter(Node.Filter filter, @Nullable Object target, Scope scope) {
    try {
      return Filters.apply(
          filter.name(), target, arguments(filter.name(), filter.arguments(), scope), this, budget);
    } catch (TemplateException e) {
      throw e.at(filter.line());
    }
  }

  /** The value of a filter block's chain of filters, the first of which gets the given text. */
  @Nullable Object filtered(Expr filters, Object text, Scope scope) {
    Node.Filter filter = (Node.Filter) filters;
    Expr target = filter.target();
    return filter(filter, target == null ? text : filtered(target, text, scope), scope);
  }

  private Args arguments(String function, Arguments arguments, Scope scope) {
    List<@Nullable Object> positional = new ArrayList<>();
    for (Expr argument : arguments.positional()) {
      positional.add(value(argument, scope));
    }
    Map<String, @Nullable Object> named = new LinkedHashMap<>();
    for (int i = 0; i < arguments.names().size(); i++) {
      named.put(arguments.names().get(i), value(arguments.named().get(i), scope));
    }
    return new Args(function, positional, named);
  }
}
