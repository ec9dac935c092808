package dev.millrace.inference.chat.jinja;

import java.time.ZonedDateTime;
import java.util.List;
import java.util.Map;
import java.util.function.UnaryOperator;
import org.jspecify.annotations.Nullable;

/**
 * A chat template in the subset of Jinja 2 that such templates use, with the settings of Hugging
 * Face's transformers: trim_blocks, lstrip_blocks, loop controls, its own tojson, raise_exception
 * and strftime_now. Values are data: no text that comes in with them is ever read as a template.
 * Templates are not trusted with time or memory: {@link Limits}. Immutable and thread-safe.
 */
public final class Template {
  private final List<Node.Statement> statements;

  private Template(List<Node.Statement> statements) {
    this.statements = statements;
  }

  /**
   * Reads a template.
   *
   * @param literals applied to the template's own texts and string literals
   * @throws TemplateException if it is no template, or uses what is not supported
   */
  public static Template parse(String source, UnaryOperator<String> literals) {
    return new Template(Parser.parse(source, literals));
  }

  /**
   * Renders it.
   *
   * @param values null, Boolean, Long, BigInteger, Double, String, and Lists and Maps of these;
   *     they are not changed
   * @param now what strftime_now gives
   * @throws TemplateException if it fails, gives up by raise_exception, or exceeds the limits
   */
  public String render(
      Map<String, ? extends @Nullable Object> values, ZonedDateTime now, Limits limits) {
    return new Interpreter(values, now, limits).render(statements);
  }
}
