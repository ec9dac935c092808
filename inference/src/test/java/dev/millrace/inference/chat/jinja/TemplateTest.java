package dev.millrace.inference.chat.jinja;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.fasterxml.jackson.databind.JsonNode;
import dev.millrace.inference.token.TextFixtures;
import java.math.BigInteger;
import java.time.Duration;
import java.time.ZoneOffset;
import java.time.ZonedDateTime;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;
import java.util.stream.StreamSupport;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Assertions;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestFactory;

class TemplateTest {
  private static final ZonedDateTime NOW =
      ZonedDateTime.of(2026, 3, 7, 15, 4, 5, 0, ZoneOffset.UTC);

  private static final Limits SMALL = new Limits(1_000_000, 8 << 20, Limits.DEFAULT.depth());

  /** Each small template of jinja_cases.py gives what Python's Jinja2 gave, errors included. */
  @TestFactory
  Stream<DynamicTest> shouldRenderAsJinja2() {
    return StreamSupport.stream(TextFixtures.json("jinja.json").spliterator(), false)
        .map(
            sample ->
                DynamicTest.dynamicTest(
                    sample.path("name").asText(), () -> assertAsGolden(sample)));
  }

  private static void assertAsGolden(JsonNode sample) {
    String source = sample.path("template").asText();
    Map<String, @Nullable Object> values = new LinkedHashMap<>();
    sample.path("context").properties().forEach(e -> values.put(e.getKey(), value(e.getValue())));
    if (sample.has("text")) {
      assertThat(render(source, values)).isEqualTo(sample.path("text").asText());
    } else {
      String message = sample.path("message").asText();
      // Jinja lists the tags that could close a block; which block it is says enough.
      String end =
          message.startsWith("Unexpected end of template.")
              ? message.substring(message.indexOf("The innermost"))
              : message;
      assertThatThrownBy(() -> render(source, values))
          .isInstanceOf(TemplateException.class)
          .hasMessageContaining(end);
    }
  }

  @Test
  void shouldNameTheLineOfAnError() {
    assertThatThrownBy(() -> render("a\nb\n{{ raise_exception('no') }}", Map.of()))
        .hasMessage("template line 3: no")
        .isInstanceOfSatisfying(TemplateException.class, e -> assertThat(e.line()).isEqualTo(3));
    assertThatThrownBy(() -> render("a\n{% for i in [1] %}\n\n{{ i.x.y }}\n{% endfor %}", Map.of()))
        .hasMessageStartingWith("template line 4: ");
    assertThatThrownBy(() -> render("a\n\n{% if %}", Map.of()))
        .hasMessageStartingWith("template line 3: ");
  }

  @Test
  void shouldNeverEvaluateValues() {
    String text = "{{ 1 + 1 }}{% raise %}{# x #}";
    assertThat(render("{{ x }}{% set y %}{{ x }}{% endset %}{{ y }}", Map.of("x", text)))
        .isEqualTo(text + text);
  }

  @Test
  void shouldRefuseWhatItDoesNotSupport() {
    for (String tag : List.of("include 'x'", "import 'x' as y", "extends 'x'", "block x")) {
      assertThatThrownBy(() -> Template.parse("{% " + tag + " %}", s -> s))
          .isInstanceOf(TemplateException.class)
          .hasMessageContaining("is not supported");
    }
    assertThatThrownBy(() -> Template.parse("{{ f(*x) }}", s -> s)).hasMessageContaining("*");
    assertThatThrownBy(() -> Template.parse("{% break %}", s -> s)).hasMessageContaining("loop");
  }

  @Test
  void shouldApplyTheGivenFunctionToLiteralsOnly() {
    Template template =
        Template.parse("a{{ 'a' ~ x }}{% if x == 'a' %}!{% endif %}", s -> s.replace('a', 'b'));
    assertThat(template.render(Map.of("x", "a"), NOW, Limits.DEFAULT)).isEqualTo("bba");
  }

  @Test
  void shouldEndHostileTemplatesWithAClearError() {
    String doubling =
        "{% set ns = namespace(s='xxxxxxxx') %}{% for i in range(99) %}{% set ns.s = ns.s ~ ns.s"
            + " %}{% endfor %}";
    assertHostile(doubling, "characters");
    assertHostile("{{ 'x' * 2000000000 }}", "characters");
    assertHostile(
        "{{ 'x' | replace('', 'y' * 10000000) | replace('', 'y' * 10000000) }}", "characters");
    String loop = "{% for i in range(100000) %}";
    assertHostile(loop + loop + "{% endfor %}{% endfor %}", "steps");
    assertHostile(loop + loop + "{{ 'xxxxxxxxxx' }}{% endfor %}{% endfor %}", "steps");
    assertHostile(loop + "{% if 1 in range(100000) | list %}{% endif %}{% endfor %}", "steps");
    assertHostile(loop + "{{ ('x' * 100000).strip('y') | length }}{% endfor %}", "steps");
    assertHostile(
        "{% set ns = namespace(l=[1]) %}" + loop + "{% set ns.l = ns.l + ns.l %}{% endfor %}",
        "steps");
    assertHostile(
        "{% set ns = namespace(l=[1]) %}"
            + loop
            + "{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l }}",
        "deep");
    assertHostile("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "deep");
    assertHostile("{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}", "deep");
    assertHostile("{{ " + "(".repeat(5000) + "1" + ")".repeat(5000) + " }}", "nested deeper");
    assertHostile("{{ " + "not ".repeat(5000) + "1 }}", "nested deeper");
    assertHostile("{{ " + "-".repeat(5000) + "1 }}", "nested deeper");
    assertHostile("{% if true %}".repeat(5000) + "{% endif %}".repeat(5000), "nested deeper");
    assertHostile("{% if x %}" + "{% elif x %}".repeat(5000) + "{% endif %}", "nested deeper");
    assertHostile("{{ 1" + " + 1".repeat(5000) + " }}", "nests deeper");
    assertHostile("{{ x" + ".a".repeat(5000) + " }}", "nests deeper");
    assertHostile("{{ 9 ** 9 ** 9 }}", "too large");
    assertHostile("{{ '%999999999d' % 1 }}", "width");
    assertHostile(
        "{{ 1e300 | round(999999999) | string | length }}{{ 9223372036854775807 + 1 }}",
        "too large");
    assertHostile("{% for t in [[1]] recursive %}{{ loop([[1]]) }}{% endfor %}", "deep");
  }

  private static void assertHostile(String source, String word) {
    Assertions.assertTimeoutPreemptively(
        Duration.ofSeconds(20),
        () ->
            assertThatThrownBy(() -> Template.parse(source, s -> s).render(Map.of(), NOW, SMALL))
                .isInstanceOf(TemplateException.class)
                .hasMessageContaining("template line 1: ")
                .hasMessageContaining(word));
  }

  private static String render(String source, Map<String, ? extends @Nullable Object> values) {
    return Template.parse(source, s -> s).render(values, NOW, Limits.DEFAULT);
  }

  /** JSON as the values that a template takes. */
  static @Nullable Object value(JsonNode json) {
    return switch (json.getNodeType()) {
      case NULL, MISSING -> null;
      case BOOLEAN -> json.booleanValue();
      case STRING, BINARY, POJO -> json.asText();
      case NUMBER ->
          json.isIntegralNumber() ? integer(json.bigIntegerValue()) : (Object) json.doubleValue();
      case ARRAY -> {
        List<@Nullable Object> list = new ArrayList<>();
        json.forEach(item -> list.add(value(item)));
        yield list;
      }
      case OBJECT -> {
        Map<String, @Nullable Object> map = new LinkedHashMap<>();
        json.properties().forEach(e -> map.put(e.getKey(), value(e.getValue())));
        yield map;
      }
    };
  }

  private static Object integer(BigInteger n) {
    return n.bitLength() < 64 ? (Object) n.longValue() : n;
  }
}
