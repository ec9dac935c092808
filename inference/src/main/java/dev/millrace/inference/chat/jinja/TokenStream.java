package dev.millrace.inference.chat.jinja;

import dev.millrace.inference.chat.jinja.Token.Kind;
import java.util.List;

/** The tokens of a template, one after the other. */
final class TokenStream {
  private static final int MOST_NESTED = 100;

  private final List<Token> tokens;
  private int at;
  private int depth;

  TokenStream(List<Token> tokens) {
    this.tokens = tokens;
  }

  Token peek() {
    return tokens.get(at);
  }

  Token peekSecond() {
    return tokens.get(Math.min(at + 1, tokens.size() - 1));
  }

  /** The next token; the last one, which is the end, stays. */
  Token next() {
    Token token = tokens.get(at);
    if (token.kind() != Kind.END) {
      at++;
    }
    return token;
  }

  boolean skipName(String name) {
    boolean there = peek().name(name);
    if (there) {
      at++;
    }
    return there;
  }

  boolean skipOperator(String operator) {
    boolean there = peek().operator(operator);
    if (there) {
      at++;
    }
    return there;
  }

  Token expect(Kind kind) {
    Token token = next();
    if (token.kind() != kind) {
      String wanted = new Token(kind, kind == Kind.NAME ? "name" : "", 0).describe();
      throw new TemplateException(
          "expected token '" + wanted + "', got '" + token.describe() + "'", token.line());
    }
    return token;
  }

  void expectName(String name) {
    Token token = next();
    if (!token.name(name)) {
      throw new TemplateException(
          "expected token '" + name + "', got '" + token.describe() + "'", token.line());
    }
  }

  void expectOperator(String operator) {
    Token token = next();
    if (!token.operator(operator)) {
      throw new TemplateException(
          "expected token '" + operator + "', got '" + token.describe() + "'", token.line());
    }
  }

  TemplateException unexpected(Token token) {
    return new TemplateException("unexpected '" + token.describe() + "'", token.line());
  }

  /** Notes one more level of nesting: each costs stack when it is parsed and when it is run. */
  void deeper() {
    if (++depth > MOST_NESTED) {
      throw new TemplateException("nested deeper than " + MOST_NESTED + " levels", peek().line());
    }
  }

  void shallower() {
    depth--;
  }
}
