package dev.millrace.inference.tool;

import dev.harrel.jsonschema.EvaluationContext;
import dev.harrel.jsonschema.Evaluator;
import dev.harrel.jsonschema.EvaluatorFactory;
import dev.harrel.jsonschema.JsonNode;
import dev.harrel.jsonschema.SchemaParsingContext;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * The two keywords with regular expressions, matched with texts that count: some expressions, such
 * as {@code (a+)+$}, take time exponential in the length of the text.
 */
final class BoundedPatterns implements EvaluatorFactory {
  private static final int MOST_PATTERN_LENGTH = 10_000;
  private static final Pattern REPEAT = Pattern.compile("\\{(\\d+)(?:,(\\d*))?\\}");
  private static final int MOST_REPEATS = 1_000;
  private static final long MOST_NESTED = 10_000;

  @Override
  public Optional<Evaluator> create(SchemaParsingContext context, String keyword, JsonNode value) {
    if (keyword.equals("pattern") && value.isString()) {
      return Optional.of(new OfText(compile(value.asString())));
    }
    if (keyword.equals("patternProperties") && value.isObject()) {
      Map<Pattern, String> schemas = new LinkedHashMap<>();
      value
          .asObject()
          .forEach((p, schema) -> schemas.put(compile(p), context.getAbsoluteUri(schema)));
      return Optional.of(new OfNames(schemas));
    }
    return Optional.empty();
  }

  private static Pattern compile(String pattern) {
    if (pattern.length() > MOST_PATTERN_LENGTH) {
      throw new IllegalArgumentException(
          "a pattern has "
              + pattern.length()
              + " characters, more than the "
              + MOST_PATTERN_LENGTH
              + " allowed");
    }
    checkRepeats(pattern);
    return Pattern.compile(pattern);
  }

  /**
   * Refuses large counted repetitions: one of something empty looks at no character, so that no
   * count of looks would end it.
   */
  private static void checkRepeats(String pattern) {
    long nested = 1;
    Matcher repeat = REPEAT.matcher(pattern);
    while (repeat.find()) {
      String count =
          repeat.group(2) == null || repeat.group(2).isEmpty() ? repeat.group(1) : repeat.group(2);
      long times = count.length() > 9 ? Long.MAX_VALUE : Long.parseLong(count);
      boolean ofGroup = repeat.start() > 0 && pattern.charAt(repeat.start() - 1) == ')';
      if (times > MOST_REPEATS || (ofGroup && (nested *= Math.max(1, times)) > MOST_NESTED)) {
        throw new IllegalArgumentException(
            "the pattern's repetition "
                + repeat.group()
                + " is too large: at most "
                + MOST_REPEATS
                + " times, and "
                + MOST_NESTED
                + " over all groups");
      }
    }
  }

  private static boolean finds(Pattern pattern, String text, JsonNode node) {
    WorkLimit limit = node instanceof BoundedNode bounded ? bounded.limit() : new WorkLimit();
    return pattern.matcher(limit.counted(text)).find();
  }

  private record OfText(Pattern pattern) implements Evaluator {
    @Override
    public Result evaluate(EvaluationContext context, JsonNode node) {
      if (!node.isString() || finds(pattern, node.asString(), node)) {
        return Result.success();
      }
      return Result.failure("does not match the pattern " + pattern);
    }
  }

  /** schemas: of the properties whose names match, by absolute reference. */
  private record OfNames(Map<Pattern, String> schemas) implements Evaluator {
    @Override
    public Result evaluate(EvaluationContext context, JsonNode node) {
      if (!node.isObject()) {
        return Result.success();
      }
      Set<String> matched = new HashSet<>();
      boolean fit = true;
      for (Map.Entry<String, JsonNode> property : node.asObject().entrySet()) {
        for (Map.Entry<Pattern, String> schema : schemas.entrySet()) {
          if (finds(schema.getKey(), property.getKey(), node)) {
            matched.add(property.getKey());
            fit &= context.resolveInternalRefAndValidate(schema.getValue(), property.getValue());
          }
        }
      }
      // The names are for additionalProperties and unevaluatedProperties beside it.
      return fit ? Result.success(matched) : Result.failure();
    }
  }
}
