package dev.millrace.inference.chat.jinja;

import java.util.List;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/** A template as a tree. */
sealed interface Node {

  /** What stands between braces and has a value. */
  sealed interface Expr extends Node {}

  record Literal(@Nullable Object value) implements Expr {}

  record Name(String name, int line) implements Expr {}

  record Items(List<Expr> items, boolean tuple) implements Expr {}

  record Dict(List<Expr> keys, List<Expr> values) implements Expr {}

  /** + - not */
  record Unary(String operator, Expr operand, int line) implements Expr {}

  /** + - * / // % ** ~ and or */
  record Binary(String operator, Expr left, Expr right, int line) implements Expr {}

  /** a &lt; b &lt; c: operators.get(i) stands before operands.get(i). */
  record Compare(Expr first, List<String> operators, List<Expr> operands, int line)
      implements Expr {}

  record Condition(Expr test, Expr then, @Nullable Expr otherwise, int line) implements Expr {}

  record Attribute(Expr target, String name, int line) implements Expr {}

  record Item(Expr target, Expr index, int line) implements Expr {}

  record Slice(Expr target, @Nullable Expr from, @Nullable Expr to, @Nullable Expr step, int line)
      implements Expr {}

  record Call(Expr target, Arguments arguments, int line) implements Expr {}

  /**
   * @param target null in a filter block, where the block's text takes its place
   */
  record Filter(@Nullable Expr target, String name, Arguments arguments, int line)
      implements Expr {}

  record Test(Expr target, String name, Arguments arguments, boolean negated, int line)
      implements Expr {}

  /** names.get(i) is the keyword of named.get(i). */
  record Arguments(List<Expr> positional, List<String> names, List<Expr> named) {
    static final Arguments NONE = new Arguments(List.of(), List.of(), List.of());
  }

  /** What makes output or has an effect. */
  sealed interface Statement extends Node {
    int line();
  }

  record Text(String text, int line) implements Statement {}

  record Print(Expr value, int line) implements Statement {}

  record If(Expr test, List<Statement> then, List<Statement> otherwise, int line)
      implements Statement {}

  record For(
      Target target,
      Expr items,
      @Nullable Expr filter,
      boolean recursive,
      List<Statement> body,
      List<Statement> otherwise,
      int line)
      implements Statement {}

  record Assign(Target target, Expr value, int line) implements Statement {}

  record AssignBlock(Target target, @Nullable Expr filter, List<Statement> body, int line)
      implements Statement {}

  /**
   * @param defaults of the last parameters
   * @param uses which of caller, varargs and kwargs the body asks for
   */
  record Macro(
      String name,
      List<String> parameters,
      List<Expr> defaults,
      List<Statement> body,
      Set<String> uses,
      int line)
      implements Statement {}

  record CallBlock(Call call, Macro caller, int line) implements Statement {}

  record FilterBlock(Expr filter, List<Statement> body, int line) implements Statement {}

  record With(List<Target> targets, List<Expr> values, List<Statement> body, int line)
      implements Statement {}

  /** Statements in the scope they stand in. */
  record Group(List<Statement> body, int line) implements Statement {}

  record Break(int line) implements Statement {}

  record Continue(int line) implements Statement {}

  /** Where a value goes. */
  sealed interface Target {}

  record Variable(String name) implements Target {}

  record Field(String namespace, String name) implements Target {}

  record Unpack(List<Target> targets) implements Target {}
}
