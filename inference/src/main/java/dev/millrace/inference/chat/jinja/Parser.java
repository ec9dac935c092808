package dev.millrace.inference.chat.jinja;

import dev.millrace.inference.chat.jinja.Node.Expr;
import dev.millrace.inference.chat.jinja.Node.Statement;
import dev.millrace.inference.chat.jinja.Node.Target;
import dev.millrace.inference.chat.jinja.Token.Kind;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.function.UnaryOperator;

/** Reads a template's statements; expressions are {@link ExpressionParser}'s. */
final class Parser {
  private static final Set<String> NOT_HERE =
      Set.of("include", "import", "from", "extends", "block", "do", "trans", "autoescape");

  private final TokenStream tokens;
  private final ExpressionParser expressions;
  private final UnaryOperator<String> literals;
  private final List<String> openTags = new ArrayList<>();
  private int loops;

  private Parser(TokenStream tokens, UnaryOperator<String> literals) {
    this.tokens = tokens;
    this.literals = literals;
    this.expressions = new ExpressionParser(tokens, literals);
  }

  /**
   * @param literals applied to each piece of text and each string literal of the template
   * @throws TemplateException if the source is no template of the supported kind
   */
  static List<Statement> parse(String source, UnaryOperator<String> literals) {
    Parser parser = new Parser(new TokenStream(Lexer.tokens(source)), literals);
    return parser.statements(Set.of());
  }

  /** Statements up to a tag of the given names, which is left standing behind its begin. */
  private List<Statement> statements(Set<String> ends) {
    List<Statement> body = new ArrayList<>();
    while (true) {
      Token token = tokens.next();
      switch (token.kind()) {
        case DATA -> body.add(new Node.Text(literals.apply(token.text()), token.line()));
        case PRINT_BEGIN -> {
          body.add(new Node.Print(expressions.tuple(true), token.line()));
          tokens.expect(Kind.PRINT_END);
        }
        case BLOCK_BEGIN -> {
          Token tag = tokens.peek();
          if (tag.kind() == Kind.NAME && ends.contains(tag.text())) {
            return body;
          }
          body.add(statement(tokens.expect(Kind.NAME)));
          tokens.expect(Kind.BLOCK_END);
        }
        case END -> {
          if (openTags.isEmpty()) {
            return body;
          }
          throw new TemplateException(
              "Unexpected end of template. The innermost block that needs to be closed is '"
                  + openTags.getLast()
                  + "'.",
              token.line());
        }
        default -> throw tokens.unexpected(token);
      }
    }
  }

  /** The body of a tag up to one of its ends, the end's name taken. */
  private List<Statement> body(String tag, String... ends) {
    tokens.expect(Kind.BLOCK_END);
    openTags.add(tag);
    tokens.deeper();
    List<Statement> body = statements(Set.of(ends));
    tokens.shallower();
    openTags.removeLast();
    return body;
  }

  private Statement statement(Token tag) {
    int line = tag.line();
    return switch (tag.text()) {
      case "if" -> ifStatement(line);
      case "for" -> forStatement(line);
      case "set" -> setStatement(line);
      case "macro" -> {
        String name = tokens.expect(Kind.NAME).text();
        yield macro("macro", name, line);
      }
      case "call" -> callBlock(line);
      case "filter" -> {
        Expr filter = expressions.filterOfBlock();
        List<Statement> body = body("filter", "endfilter");
        tokens.next();
        yield new Node.FilterBlock(filter, body, line);
      }
      case "with" -> withStatement(line);
      case "generation" -> {
        // Marks what the assistant said, for training; renders as if it were not there.
        List<Statement> body = body("generation", "endgeneration");
        tokens.next();
        yield new Node.Group(body, line);
      }
      case "break", "continue" -> {
        if (loops == 0) {
          throw new TemplateException("'" + tag.text() + "' outside of a loop", line);
        }
        yield tag.text().equals("break") ? new Node.Break(line) : new Node.Continue(line);
      }
      default -> throw unknown(tag);
    };
  }

  private TemplateException unknown(Token tag) {
    if (NOT_HERE.contains(tag.text())) {
      return new TemplateException(
          "the tag '" + tag.text() + "' is not supported in chat templates", tag.line());
    }
    return new TemplateException("Encountered unknown tag '" + tag.text() + "'.", tag.line());
  }

  private Statement ifStatement(int line) {
    Expr test = expressions.tuple(false);
    List<Statement> then = body("if", "elif", "else", "endif");
    Token next = tokens.next();
    return switch (next.text()) {
      case "elif" -> {
        tokens.deeper();
        Statement chained = ifStatement(next.line());
        tokens.shallower();
        yield new Node.If(test, then, List.of(chained), line);
      }
      case "else" -> {
        List<Statement> otherwise = body("if", "endif");
        tokens.next();
        yield new Node.If(test, then, otherwise, line);
      }
      default -> new Node.If(test, then, List.of(), line);
    };
  }

  private Statement forStatement(int line) {
    Target target = targets(false);
    tokens.expectName("in");
    Expr items = expressions.tuple(false);
    Expr filter = tokens.skipName("if") ? expressions.expression() : null;
    boolean recursive = tokens.skipName("recursive");
    loops++;
    List<Statement> body = body("for", "endfor", "else");
    loops--;
    List<Statement> otherwise = List.of();
    if (tokens.next().text().equals("else")) {
      otherwise = body("for", "endfor");
      tokens.next();
    }
    return new Node.For(target, items, filter, recursive, body, otherwise, line);
  }

  private Statement setStatement(int line) {
    Target target = targets(true);
    if (tokens.skipOperator("=")) {
      return new Node.Assign(target, expressions.tuple(true), line);
    }
    Expr filter = tokens.peek().operator("|") ? expressions.filterOfSet() : null;
    List<Statement> body = body("set", "endset");
    tokens.next();
    return new Node.AssignBlock(target, filter, body, line);
  }

  /** Parameters and body of a macro or of the caller of a call block. */
  private Node.Macro macro(String tag, String name, int line) {
    List<String> parameters = new ArrayList<>();
    List<Expr> defaults = new ArrayList<>();
    if (tag.equals("macro") || tokens.peek().operator("(")) {
      parameters(parameters, defaults);
    }
    return macroBody(tag, name, parameters, defaults, line);
  }

  private void parameters(List<String> parameters, List<Expr> defaults) {
    tokens.expectOperator("(");
    while (!tokens.peek().operator(")")) {
      if (!parameters.isEmpty()) {
        tokens.expectOperator(",");
      }
      Token parameter = tokens.expect(Kind.NAME);
      parameters.add(parameter.text());
      if (tokens.skipOperator("=")) {
        defaults.add(expressions.expression());
      } else if (!defaults.isEmpty()) {
        throw new TemplateException(
            "non-default argument follows default argument", parameter.line());
      }
    }
    tokens.next();
  }

  private Node.Macro macroBody(
      String tag, String name, List<String> parameters, List<Expr> defaults, int line) {
    int outerLoops = loops;
    loops = 0;
    Set<String> before = expressions.namesSince(Set.of());
    List<Statement> body = body(tag, "end" + tag);
    Set<String> uses = expressions.namesSince(before);
    loops = outerLoops;
    tokens.next();
    return new Node.Macro(name, parameters, defaults, body, uses, line);
  }

  private Statement callBlock(int line) {
    List<String> parameters = new ArrayList<>();
    List<Expr> defaults = new ArrayList<>();
    if (tokens.peek().operator("(")) {
      parameters(parameters, defaults);
    }
    if (!(expressions.expression() instanceof Node.Call call)) {
      throw new TemplateException("expected call", line);
    }
    return new Node.CallBlock(call, macroBody("call", "caller", parameters, defaults, line), line);
  }

  private Statement withStatement(int line) {
    List<Target> targets = new ArrayList<>();
    List<Expr> values = new ArrayList<>();
    while (tokens.peek().kind() != Kind.BLOCK_END) {
      if (!targets.isEmpty()) {
        tokens.expectOperator(",");
      }
      targets.add(target(false));
      tokens.expectOperator("=");
      values.add(expressions.expression());
    }
    List<Statement> body = body("with", "endwith");
    tokens.next();
    return new Node.With(targets, values, body, line);
  }

  /** One target, or several with commas between. */
  private Target targets(boolean fields) {
    Target first = target(fields);
    if (!tokens.peek().operator(",")) {
      return first;
    }
    List<Target> all = new ArrayList<>(List.of(first));
    while (tokens.skipOperator(",")) {
      Token next = tokens.peek();
      if (next.name("in") || next.operator("=") || next.operator(")")) {
        break;
      }
      all.add(target(fields));
    }
    return new Node.Unpack(all);
  }

  private Target target(boolean fields) {
    if (tokens.skipOperator("(")) {
      tokens.deeper();
      Target inner = targets(fields);
      tokens.shallower();
      tokens.expectOperator(")");
      return inner;
    }
    Token name = tokens.expect(Kind.NAME);
    if (Set.of("true", "false", "none", "True", "False", "None").contains(name.text())) {
      throw new TemplateException("can't assign to '" + name.text() + "'", name.line());
    }
    if (fields && tokens.skipOperator(".")) {
      return new Node.Field(name.text(), tokens.expect(Kind.NAME).text());
    }
    return new Node.Variable(name.text());
  }
}
