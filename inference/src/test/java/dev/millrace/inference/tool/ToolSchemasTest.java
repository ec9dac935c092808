package dev.millrace.inference.tool;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.millrace.inference.api.InvalidRequestException;
import dev.millrace.inference.api.Tool;
import java.time.Duration;
import java.util.List;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Assertions;
import org.junit.jupiter.api.Test;

class ToolSchemasTest {
  private static final ToolSchemaCompiler COMPILER = new ToolSchemaCompiler();
  private static final String WEATHER =
      """
      {"type": "object", "properties": {"city": {"type": "string", "minLength": 1},
       "days": {"type": "integer", "minimum": 1}}, "required": ["city"],
       "additionalProperties": false}\
      """;

  @Test
  void shouldAcceptArgumentsThatFit() {
    assertThat(problem(WEATHER, "{\"city\": \"Köln\", \"days\": 3}")).isNull();
    assertThat(problem(WEATHER, "{\"city\": \"Köln\", \"days\": 3.0}")).isNull();
    assertThat(problem("", "{\"any\": [1]}")).isNull();
    assertThat(problem("{}", "{}")).isNull();
  }

  @Test
  void shouldSayWhatDoesNotFitAndWhere() {
    assertThat(problem(WEATHER, "{\"days\": 3}")).contains("city");
    assertThat(problem(WEATHER, "{\"city\": 5}")).contains("at /city").contains("string");
    assertThat(problem(WEATHER, "{\"city\": \"a\", \"days\": 1.5}")).contains("at /days");
    assertThat(problem(WEATHER, "{\"city\": \"a\", \"x\": 1}")).contains("/x");
    assertThat(problem(WEATHER, "[1]")).contains("an array, not an object");
    assertThat(problem(WEATHER, "{\"city\": ")).contains("no JSON");
    assertThat(problem(WEATHER, "{} {}")).contains("no JSON");
    assertThat(problem("", "3")).contains("a number, not an object");
    assertThat(COMPILER.compile(List.of()).problem("f", "{}")).isEqualTo("there is no tool f");
  }

  @Test
  void shouldApplyPatternsAndNames() {
    String schema =
        """
        {"patternProperties": {"^n_": {"type": "integer"}}, "additionalProperties": false,
         "properties": {"id": {"pattern": "^[a-z]+$"}}}\
        """;
    assertThat(problem(schema, "{\"n_a\": 1, \"id\": \"abc\"}")).isNull();
    assertThat(problem(schema, "{\"n_a\": \"x\"}")).contains("/n_a");
    assertThat(problem(schema, "{\"id\": \"ABC\"}")).contains("/id").contains("^[a-z]+$");
    assertThat(problem(schema, "{\"other\": 1}")).contains("/other");
  }

  @Test
  void shouldFollowReferencesWithinTheSchema() {
    String schema =
        """
        {"$defs": {"n": {"type": "number"}}, "properties": {"a": {"$ref": "#/$defs/n"}}}\
        """;
    assertThat(problem(schema, "{\"a\": 1}")).isNull();
    assertThat(problem(schema, "{\"a\": \"x\"}")).contains("at /a");
  }

  @Test
  void shouldUnderstandOtherDrafts() {
    String schema =
        """
        {"$schema": "http://json-schema.org/draft-07/schema#",
         "definitions": {"n": {"type": "number"}}, "properties": {"a": {"$ref": "#/definitions/n"}},
         "dependencies": {"a": ["b"]}}\
        """;
    assertThat(problem(schema, "{\"a\": 1, \"b\": 2}")).isNull();
    assertThat(problem(schema, "{\"a\": 1}")).contains("b");
  }

  @Test
  void shouldRefuseWhatIsNoSchema() {
    assertRefused("nonsense", "no JSON");
    assertRefused("[]", "an array, a JSON schema is an object");
    assertRefused("\"x\"", "a string, a JSON schema is an object");
    assertRefused("{\"type\": \"banana\"}", "/type");
    assertRefused("{\"properties\": 5}", "/properties");
    assertRefused("{\"properties\": {\"a\": {\"pattern\": \"(\"}}}", "(");
    assertRefused("{\"$schema\": \"https://example.org/mine\"}", "example.org");
    assertRefused("{\"type\": \"object\"} trailing", "no JSON");
    assertRefused("{\"minimum\": 1e999999999}", "digits");
  }

  @Test
  void shouldRefuseReferencesToOtherPlaces() {
    for (String target :
        List.of("https://example.org/a.json", "file:///etc/passwd", "other.json")) {
      assertRefused(
          "{\"properties\": {\"a\": {\"$ref\": \"" + target + "\"}}}",
          "only references within the schema are followed");
    }
  }

  @Test
  void shouldRefuseNamesThatBreakTemplatesAndPairsOfOneName() {
    for (String name : List.of("", "a\"b", "a\\b", "a\nb", "<|eot_id|>", "x".repeat(129))) {
      assertThatThrownBy(() -> COMPILER.compile(List.of(new Tool(name, "", ""))))
          .isInstanceOf(InvalidRequestException.class);
    }
    assertThatThrownBy(
            () -> COMPILER.compile(List.of(new Tool("f", "", ""), new Tool("f", "x", ""))))
        .hasMessage("two tools have the name f");
  }

  @Test
  void shouldNotHangOnHostileSchemas() {
    String a = "a".repeat(40) + "!";
    quickly(() -> problem("{\"properties\": {\"a\": {\"pattern\": \"^(a+)+$\"}}}", arg(a)));
    quickly(() -> problem("{\"patternProperties\": {\"^(a+)+$\": {}}}", "{\"" + a + "\": 1}"));
    quickly(
        () -> problem("{\"propertyNames\": {\"pattern\": \"^(a|aa)+$\"}}", "{\"" + a + "\":1}"));
    quickly(
        () ->
            problem(
                "{\"properties\": {\"a\": {\"pattern\": \"^(a|b)*$\"}}}",
                arg("ab".repeat(50_000))));
    quickly(() -> problem("{\"$ref\": \"#\"}", "{}"));
    quickly(
        () -> problem("{\"properties\": {\"a\": {\"multipleOf\": 3}}}", "{\"a\": 1e999999999}"));
    StringBuilder doubling = new StringBuilder("{\"$ref\": \"#/$defs/d0\", \"$defs\": {");
    for (int i = 0; i < 40; i++) {
      String next = "{\"$ref\": \"#/$defs/d" + (i + 1) + "\"}";
      doubling.append("\"d").append(i).append("\": {\"allOf\": [" + next + "," + next + "]}, ");
    }
    doubling.append("\"d40\": {\"type\": \"object\"}}}");
    quickly(() -> problem(doubling.toString(), "{}"));
    String deep = "{\"not\":".repeat(990) + "{}" + "}".repeat(990);
    quickly(() -> problem(deep, "{}"));
  }

  @Test
  void shouldRefuseRepetitionsThatNoLookAtACharacterEnds() {
    for (String pattern :
        List.of("(?:(?:){2000000000}){2000000000}", "(?:a?){2000000000}", "(?:(?:a?){999}){999}")) {
      assertThatThrownBy(
              () ->
                  problem("{\"properties\": {\"a\": {\"pattern\": \"" + pattern + "\"}}}", arg("")))
          .as(pattern)
          .isInstanceOf(InvalidRequestException.class)
          .hasMessageContaining("repetition");
    }
    assertThat(
            problem(
                "{\"properties\": {\"a\": {\"pattern\": \"^[0-9]{4}-[0-9]{2}$\"}}}",
                arg("2026-11")))
        .isNull();
  }

  private static String arg(String a) {
    return "{\"a\": \"" + a + "\"}";
  }

  @Test
  void shouldSayThatAPatternTakesTooMuchWork() {
    String schema = "{\"propertyNames\": {\"pattern\": \"^(a|aa)+\\\\1b$\"}}";
    String arguments = "{\"" + "a".repeat(60) + "!\": 1}";
    Assertions.assertTimeoutPreemptively(
        Duration.ofSeconds(20),
        () ->
            assertThat(problem(schema, arguments))
                .isEqualTo("not checked: checking against the schema takes too much work"));
  }

  @Test
  void shouldGiveTheSameResultsForSchemasThatItKept() {
    ToolSchemaCompiler compiler = new ToolSchemaCompiler();
    for (int i = 0; i < 1500; i++) {
      String schema = "{\"required\": [\"a" + i % 600 + "\"]}";
      assertThat(compiler.compile(List.of(new Tool("f", "", schema))).problem("f", "{}"))
          .contains("a" + i % 600);
    }
  }

  /** Whatever the outcome, it comes soon, and a refusal is one that says so. */
  private static void quickly(java.util.function.Supplier<@Nullable String> check) {
    Assertions.assertTimeoutPreemptively(
        Duration.ofSeconds(20),
        () -> {
          try {
            check.get();
          } catch (InvalidRequestException e) {
            assertThat(e).hasMessageContaining("no JSON schema");
          }
        });
  }

  private static void assertRefused(String schema, String why) {
    assertThatThrownBy(() -> COMPILER.compile(List.of(new Tool("f", "", schema))))
        .isInstanceOf(InvalidRequestException.class)
        .hasMessageStartingWith("the parameters of tool f are no JSON schema: ")
        .hasMessageContaining(why);
  }

  private static @Nullable String problem(String schema, String arguments) {
    return COMPILER.compile(List.of(new Tool("f", "", schema))).problem("f", arguments);
  }
}
