package dev.millrace.inference.chat.jinja;

import dev.millrace.inference.chat.jinja.Node.Arguments;
import dev.millrace.inference.chat.jinja.Node.Expr;
import dev.millrace.inference.chat.jinja.Token.Kind;
import java.math.BigInteger;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.function.UnaryOperator;
import org.jspecify.annotations.Nullable;

/**
 * Reads expressions, loosest operators first: {@code if else}, {@code or}, {@code and}, {@code
 * not}, comparisons, {@code + -}, {@code ~}, {@code * / // %}, {@code **}, signs; filters and tests
 * bind tightest.
 */
final class ExpressionParser {
  private static final Set<String> COMPARISONS = Set.of("==", "!=", "<", "<=", ">", ">=");

  private static final Set<String> OF_MACROS = Set.of("caller", "varargs", "kwargs");

  private final TokenStream tokens;
  private final UnaryOperator<String> literals;
  private final Set<String> namesSeen = new HashSet<>();

  ExpressionParser(TokenStream tokens, UnaryOperator<String> literals) {
    this.tokens = tokens;
    this.literals = literals;
  }

  /**
   * Which of caller, varargs and kwargs were read since the last call; from then on they count as
   * read again if they are among {@code before}.
   */
  Set<String> namesSince(Set<String> before) {
    Set<String> seen = Set.copyOf(namesSeen);
    namesSeen.clear();
    namesSeen.addAll(before);
    return seen;
  }

  Expr expression() {
    tokens.deeper();
    Expr value = or();
    while (tokens.peek().name("if")) {
      int line = tokens.next().line();
      Expr test = or();
      Expr otherwise = tokens.skipName("else") ? expression() : null;
      value = new Node.Condition(test, value, otherwise, line);
    }
    tokens.shallower();
    return value;
  }

  /** An expression, or several with commas between, which make a tuple. */
  Expr tuple(boolean conditions) {
    Expr first = conditions ? expression() : or();
    if (!tokens.peek().operator(",")) {
      return first;
    }
    List<Expr> items = new ArrayList<>(List.of(first));
    while (tokens.skipOperator(",")) {
      Token next = tokens.peek();
      if (next.kind() == Kind.PRINT_END
          || next.kind() == Kind.BLOCK_END
          || next.operator(")")
          || next.operator("]")) {
        break;
      }
      items.add(conditions ? expression() : or());
    }
    return new Node.Items(items, true);
  }

  /** The filters of a filter block: {@code name(arguments) | name}. */
  Expr filterOfBlock() {
    return filters(filter(null));
  }

  /** The filters of a set block, each with its bar. */
  Expr filterOfSet() {
    tokens.expectOperator("|");
    return filterOfBlock();
  }

  private Expr filters(Expr value) {
    Expr filtered = value;
    while (tokens.skipOperator("|")) {
      filtered = filter(filtered);
    }
    return filtered;
  }

  private Expr or() {
    Expr left = and();
    while (tokens.peek().name("or")) {
      int line = tokens.next().line();
      left = new Node.Binary("or", left, and(), line);
    }
    return left;
  }

  private Expr and() {
    Expr left = not();
    while (tokens.peek().name("and")) {
      int line = tokens.next().line();
      left = new Node.Binary("and", left, not(), line);
    }
    return left;
  }

  private Expr not() {
    if (!tokens.peek().name("not")) {
      return compare();
    }
    int line = tokens.next().line();
    tokens.deeper();
    Expr operand = not();
    tokens.shallower();
    return new Node.Unary("not", operand, line);
  }

  private Expr compare() {
    Expr first = sum();
    List<String> operators = new ArrayList<>();
    List<Expr> operands = new ArrayList<>();
    int line = tokens.peek().line();
    while (true) {
      Token token = tokens.peek();
      if (token.kind() == Kind.OPERATOR && COMPARISONS.contains(token.text())) {
        operators.add(tokens.next().text());
      } else if (token.name("in")) {
        operators.add(tokens.next().text());
      } else if (token.name("not") && tokens.peekSecond().name("in")) {
        tokens.next();
        tokens.next();
        operators.add("not in");
      } else {
        return operators.isEmpty() ? first : new Node.Compare(first, operators, operands, line);
      }
      operands.add(sum());
    }
  }

  private Expr sum() {
    Expr left = concatenation();
    while (tokens.peek().operator("+") || tokens.peek().operator("-")) {
      Token operator = tokens.next();
      left = new Node.Binary(operator.text(), left, concatenation(), operator.line());
    }
    return left;
  }

  private Expr concatenation() {
    Expr left = product();
    while (tokens.peek().operator("~")) {
      int line = tokens.next().line();
      left = new Node.Binary("~", left, product(), line);
    }
    return left;
  }

  private Expr product() {
    Expr left = power();
    while (tokens.peek().kind() == Kind.OPERATOR
        && Set.of("*", "/", "//", "%").contains(tokens.peek().text())) {
      Token operator = tokens.next();
      left = new Node.Binary(operator.text(), left, power(), operator.line());
    }
    return left;
  }

  private Expr power() {
    Expr left = unary(true);
    while (tokens.peek().operator("**")) {
      int line = tokens.next().line();
      left = new Node.Binary("**", left, unary(true), line);
    }
    return left;
  }

  private Expr unary(boolean filtered) {
    Token token = tokens.peek();
    Expr value;
    if (token.operator("-") || token.operator("+")) {
      tokens.next();
      tokens.deeper();
      value = new Node.Unary(token.text(), unary(false), token.line());
      tokens.shallower();
    } else {
      value = primary();
    }
    value = postfix(value);
    return filtered ? filtersAndTests(value) : value;
  }

  private Expr primary() {
    Token token = tokens.next();
    return switch (token.kind()) {
      case NAME ->
          switch (token.text()) {
            case "true", "True" -> new Node.Literal(true);
            case "false", "False" -> new Node.Literal(false);
            case "none", "None" -> new Node.Literal(null);
            default -> {
              if (OF_MACROS.contains(token.text())) {
                namesSeen.add(token.text());
              }
              yield new Node.Name(token.text(), token.line());
            }
          };
      case STRING -> {
        StringBuilder text = new StringBuilder(token.text());
        while (tokens.peek().kind() == Kind.STRING) {
          text.append(tokens.next().text());
        }
        yield new Node.Literal(literals.apply(text.toString()));
      }
      case INTEGER -> new Node.Literal(integer(token));
      case FLOAT -> new Node.Literal(Double.parseDouble(token.text()));
      case OPERATOR ->
          switch (token.text()) {
            case "(" -> parentheses();
            case "[" -> new Node.Items(list("]"), false);
            case "{" -> dict();
            default -> throw tokens.unexpected(token);
          };
      default -> throw tokens.unexpected(token);
    };
  }

  private static Object integer(Token token) {
    String text = token.text().toLowerCase(java.util.Locale.ROOT);
    int radix =
        text.startsWith("0x") ? 16 : text.startsWith("0o") ? 8 : text.startsWith("0b") ? 2 : 10;
    if (text.length() > 1000) {
      throw new TemplateException("a number of " + text.length() + " digits", token.line());
    }
    return Values.integer(new BigInteger(radix == 10 ? text : text.substring(2), radix));
  }

  private Expr parentheses() {
    if (tokens.skipOperator(")")) {
      return new Node.Items(List.of(), true);
    }
    tokens.deeper();
    Expr inner = tuple(true);
    tokens.shallower();
    tokens.expectOperator(")");
    return inner;
  }

  private List<Expr> list(String end) {
    List<Expr> items = new ArrayList<>();
    while (!tokens.peek().operator(end)) {
      if (!items.isEmpty()) {
        tokens.expectOperator(",");
        if (tokens.peek().operator(end)) {
          break;
        }
      }
      items.add(expression());
    }
    tokens.next();
    return items;
  }

  private Expr dict() {
    List<Expr> keys = new ArrayList<>();
    List<Expr> values = new ArrayList<>();
    while (!tokens.peek().operator("}")) {
      if (!keys.isEmpty()) {
        tokens.expectOperator(",");
        if (tokens.peek().operator("}")) {
          break;
        }
      }
      keys.add(expression());
      tokens.expectOperator(":");
      values.add(expression());
    }
    tokens.next();
    return new Node.Dict(keys, values);
  }

  private Expr postfix(Expr target) {
    Expr value = target;
    while (true) {
      Token token = tokens.peek();
      if (token.operator(".")) {
        tokens.next();
        Token name = tokens.next();
        value =
            switch (name.kind()) {
              case NAME -> new Node.Attribute(value, name.text(), name.line());
              case INTEGER -> new Node.Item(value, new Node.Literal(integer(name)), name.line());
              default -> throw tokens.unexpected(name);
            };
      } else if (token.operator("[")) {
        tokens.next();
        value = subscript(value, token.line());
      } else if (token.operator("(")) {
        value = new Node.Call(value, arguments(), token.line());
      } else {
        return value;
      }
    }
  }

  private Expr subscript(Expr target, int line) {
    Expr from = tokens.peek().operator(":") ? null : tuple(true);
    Expr result;
    if (from != null && !tokens.peek().operator(":")) {
      result = new Node.Item(target, from, line);
    } else {
      tokens.expectOperator(":");
      Expr to = sliceEnds() ? null : expression();
      Expr step = tokens.skipOperator(":") && !sliceEnds() ? expression() : null;
      result = new Node.Slice(target, from, to, step, line);
    }
    tokens.expectOperator("]");
    return result;
  }

  private boolean sliceEnds() {
    return tokens.peek().operator(":") || tokens.peek().operator("]");
  }

  private Arguments arguments() {
    tokens.expectOperator("(");
    List<Expr> positional = new ArrayList<>();
    List<String> names = new ArrayList<>();
    List<Expr> named = new ArrayList<>();
    while (!tokens.peek().operator(")")) {
      if (!positional.isEmpty() || !named.isEmpty()) {
        tokens.expectOperator(",");
        if (tokens.peek().operator(")")) {
          break;
        }
      }
      Token token = tokens.peek();
      if (token.operator("*") || token.operator("**")) {
        throw new TemplateException("arguments with * or ** are not supported", token.line());
      }
      if (token.kind() == Kind.NAME && tokens.peekSecond().operator("=")) {
        tokens.next();
        tokens.next();
        names.add(token.text());
        named.add(expression());
      } else if (!named.isEmpty()) {
        throw new TemplateException("invalid syntax for function call expression", token.line());
      } else {
        positional.add(expression());
      }
    }
    tokens.next();
    return new Arguments(positional, names, named);
  }

  private Expr filtersAndTests(Expr target) {
    Expr value = target;
    while (true) {
      Token token = tokens.peek();
      if (token.operator("|")) {
        tokens.next();
        value = filter(value);
      } else if (token.name("is")) {
        tokens.next();
        value = test(value);
      } else if (token.operator("(")) {
        value = new Node.Call(value, arguments(), token.line());
      } else {
        return value;
      }
    }
  }

  private Expr filter(@Nullable Expr target) {
    Token name = tokens.expect(Kind.NAME);
    if (!Filters.known(name.text())) {
      throw new TemplateException("No filter named '" + name.text() + "'.", name.line());
    }
    Arguments arguments = tokens.peek().operator("(") ? arguments() : Arguments.NONE;
    return new Node.Filter(target, name.text(), arguments, name.line());
  }

  private Expr test(Expr target) {
    boolean negated = tokens.skipName("not");
    Token name = tokens.expect(Kind.NAME);
    if (!Tests.known(name.text())) {
      throw new TemplateException("No test named '" + name.text() + "'.", name.line());
    }
    Arguments arguments = Arguments.NONE;
    Token next = tokens.peek();
    if (next.operator("(")) {
      arguments = arguments();
    } else if (startsArgument(next)) {
      if (next.name("is")) {
        throw new TemplateException("You cannot chain multiple tests with is", next.line());
      }
      arguments = new Arguments(List.of(postfix(primary())), List.of(), List.of());
    }
    return new Node.Test(target, name.text(), arguments, negated, name.line());
  }

  private static boolean startsArgument(Token token) {
    return switch (token.kind()) {
      case NAME ->
          !token.name("else") && !token.name("or") && !token.name("and") && !token.name("if");
      case STRING, INTEGER, FLOAT -> true;
      case OPERATOR -> token.operator("[") || token.operator("{");
      default -> false;
    };
  }
}
