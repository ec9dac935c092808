package dev.millrace.inference.chat.jinja;

import dev.millrace.inference.chat.jinja.Node.Statement;
import dev.millrace.inference.chat.jinja.Node.Target;
import java.time.ZonedDateTime;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/** One rendering of a template: runs its statements. For one thread. */
final class Interpreter {
  private enum Flow {
    NEXT,
    BREAK,
    CONTINUE
  }

  private final Budget budget;
  private final Scope globals = new Scope(null);
  private final Evaluator evaluator;

  Interpreter(Map<String, ? extends @Nullable Object> values, ZonedDateTime now, Limits limits) {
    this.budget = new Budget(limits);
    this.evaluator = new Evaluator(budget);
    Globals.define(globals, now, budget);
    values.forEach(globals::set);
  }

  String render(List<Statement> statements) {
    StringBuilder out = new StringBuilder();
    run(statements, new Scope(globals), out);
    return out.toString();
  }

  private Flow run(List<Statement> statements, Scope scope, StringBuilder out) {
    for (Statement statement : statements) {
      Flow flow;
      budget.enter();
      try {
        budget.step();
        flow = run(statement, scope, out);
      } catch (TemplateException e) {
        throw e.at(statement.line());
      }
      budget.leave();
      if (flow != Flow.NEXT) {
        return flow;
      }
    }
    return Flow.NEXT;
  }

  private Flow run(Statement statement, Scope scope, StringBuilder out) {
    switch (statement) {
      case Node.Text text -> print(text.text(), out);
      case Node.Print print ->
          print(Values.text(evaluator.value(print.value(), scope), budget), out);
      case Node.If branch -> {
        boolean holds = Values.truth(evaluator.value(branch.test(), scope));
        return run(holds ? branch.then() : branch.otherwise(), scope, out);
      }
      case Node.For loop -> {
        return loop(loop, evaluator.value(loop.items(), scope), scope, 1, out);
      }
      case Node.Assign set -> assign(set.target(), evaluator.value(set.value(), scope), scope);
      case Node.AssignBlock set -> {
        Object text = capture(set.body(), new Scope(scope));
        assign(
            set.target(),
            set.filter() == null ? text : evaluator.filtered(set.filter(), text, scope),
            scope);
      }
      case Node.Macro macro -> scope.set(macro.name(), macro(macro, scope));
      case Node.CallBlock block -> {
        Callable caller = macro(block.caller(), scope);
        Object result = evaluator.call(block.call(), scope, caller);
        print(Values.text(result, budget), out);
      }
      case Node.FilterBlock block -> {
        Object text = capture(block.body(), new Scope(scope));
        print(Values.text(evaluator.filtered(block.filter(), text, scope), budget), out);
      }
      case Node.With with -> {
        Scope inner = new Scope(scope);
        for (int i = 0; i < with.targets().size(); i++) {
          assign(with.targets().get(i), evaluator.value(with.values().get(i), scope), inner);
        }
        return run(with.body(), inner, out);
      }
      case Node.Group group -> {
        return run(group.body(), scope, out);
      }
      case Node.Break ignored -> {
        return Flow.BREAK;
      }
      case Node.Continue ignored -> {
        return Flow.CONTINUE;
      }
    }
    return Flow.NEXT;
  }

  private void print(String text, StringBuilder out) {
    budget.text(text.length());
    budget.checkLength((long) out.length() + text.length());
    out.append(text);
  }

  private String capture(List<Statement> body, Scope scope) {
    StringBuilder out = new StringBuilder();
    run(body, scope, out);
    return out.toString();
  }

  private Flow loop(
      Node.For loop, @Nullable Object over, Scope scope, int depth, StringBuilder out) {
    List<@Nullable Object> items = Values.items(over, budget);
    if (loop.filter() != null) {
      List<@Nullable Object> kept = new ArrayList<>();
      for (Object item : items) {
        Scope inner = new Scope(scope);
        assign(loop.target(), item, inner);
        if (Values.truth(evaluator.value(loop.filter(), inner))) {
          kept.add(item);
        }
      }
      items = kept;
    }
    if (items.isEmpty()) {
      return run(loop.otherwise(), scope, out);
    }
    Callable recurse = null;
    if (loop.recursive()) {
      recurse =
          (arguments, named) -> {
            StringBuilder inner = new StringBuilder();
            loop(
                loop,
                new Args("loop", arguments, named).required(0, "iterable"),
                scope,
                depth + 1,
                inner);
            return inner.toString();
          };
    }
    Loop variable = new Loop(items, depth, recurse, budget);
    for (Object item : items) {
      budget.step();
      variable.advance();
      Scope inner = new Scope(scope);
      inner.set("loop", variable);
      assign(loop.target(), item, inner);
      if (run(loop.body(), inner, out) == Flow.BREAK) {
        break;
      }
    }
    return Flow.NEXT;
  }

  private void assign(Target target, @Nullable Object value, Scope scope) {
    switch (target) {
      case Node.Variable variable -> scope.set(variable.name(), value);
      case Node.Field field -> {
        if (!(scope.get(field.namespace()) instanceof Namespace namespace)) {
          throw new TemplateException("cannot assign attribute on non-namespace object");
        }
        namespace.fields.put(field.name(), value);
      }
      case Node.Unpack unpack -> {
        if (value instanceof Undefined u) {
          throw u.error();
        }
        List<@Nullable Object> items = Values.items(value, budget);
        int wanted = unpack.targets().size();
        if (items.size() != wanted) {
          throw new TemplateException(
              items.size() < wanted
                  ? "not enough values to unpack (expected "
                      + wanted
                      + ", got "
                      + items.size()
                      + ")"
                  : "too many values to unpack (expected " + wanted + ")");
        }
        for (int i = 0; i < wanted; i++) {
          assign(unpack.targets().get(i), items.get(i), scope);
        }
      }
    }
  }

  private Callable macro(Node.Macro macro, Scope scope) {
    return (arguments, named) -> {
      Scope inner = new Scope(scope);
      Map<String, @Nullable Object> left = new LinkedHashMap<>(named);
      List<String> parameters = macro.parameters();
      int firstDefault = parameters.size() - macro.defaults().size();
      for (int i = 0; i < parameters.size(); i++) {
        String name = parameters.get(i);
        Object value;
        if (i < arguments.size()) {
          value = arguments.get(i);
        } else if (left.containsKey(name)) {
          value = left.remove(name);
        } else if (i >= firstDefault) {
          value = evaluator.value(macro.defaults().get(i - firstDefault), inner);
        } else {
          value = new Undefined("parameter '" + name + "' was not provided");
        }
        inner.set(name, value);
      }
      takeRest(macro, arguments, left, inner);
      return capture(macro.body(), inner);
    };
  }

  /** Arguments beyond the parameters are an error unless the body asks for them by name. */
  private static void takeRest(
      Node.Macro macro,
      List<@Nullable Object> arguments,
      Map<String, @Nullable Object> left,
      Scope scope) {
    int parameters = macro.parameters().size();
    if (macro.uses().contains("caller") && left.containsKey("caller")) {
      scope.set("caller", left.remove("caller"));
    }
    if (macro.uses().contains("varargs")) {
      List<@Nullable Object> rest =
          arguments.subList(Math.min(parameters, arguments.size()), arguments.size());
      scope.set("varargs", new Tuple(new ArrayList<>(rest)));
    } else if (arguments.size() > parameters) {
      throw new TemplateException(
          "macro '" + macro.name() + "' takes not more than " + parameters + " argument(s)");
    }
    if (macro.uses().contains("kwargs")) {
      scope.set("kwargs", left);
    } else if (!left.isEmpty()) {
      throw new TemplateException(
          "macro '"
              + macro.name()
              + "' takes no keyword argument '"
              + left.keySet().iterator().next()
              + "'");
    }
  }
}
