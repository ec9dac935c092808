package dev.millrace.topology;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.tuple;

import dev.millrace.inference.api.GenerateEvent.Failure;
import dev.millrace.inference.api.GenerateEvent.ToolCall;
import io.opentelemetry.api.OpenTelemetry;
import io.opentelemetry.api.common.AttributeKey;
import io.opentelemetry.api.trace.SpanKind;
import io.opentelemetry.api.trace.StatusCode;
import io.opentelemetry.context.Context;
import io.opentelemetry.sdk.OpenTelemetrySdk;
import io.opentelemetry.sdk.testing.junit5.OpenTelemetryExtension;
import io.opentelemetry.sdk.trace.ReadWriteSpan;
import io.opentelemetry.sdk.trace.ReadableSpan;
import io.opentelemetry.sdk.trace.SdkTracerProvider;
import io.opentelemetry.sdk.trace.SpanProcessor;
import io.opentelemetry.sdk.trace.data.SpanData;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.streams.test.TestRecord;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** The trace context of a prompt on what comes of it, with an SDK and without. */
class TracingTest {
  private static final String TRACE = "4bf92f3577b34da6a3ce929d0e0e4736";
  private static final String PARENT = "00f067aa0ba902b7";
  private static final Map<String, String> CONTEXT =
      Map.of(
          "traceparent", "00-" + TRACE + "-" + PARENT + "-01",
          "tracestate", "vendor=1",
          "baggage", "user=7");
  private static final Duration LATER = Duration.ofSeconds(1);

  @RegisterExtension final OpenTelemetryExtension sdk = OpenTelemetryExtension.create();

  private static String header(TestRecord<?, ?> record, String name) {
    Header header = record.headers().lastHeader(name);
    return header == null ? "" : new String(header.value(), UTF_8);
  }

  private static void send(Harness harness, String id) {
    harness.send(
        id.getBytes(UTF_8), harness.bytes(Harness.prompt(id).setStream(true).build()), CONTEXT);
  }

  private SpanData span(String name) {
    List<SpanData> found =
        sdk.getSpans().stream().filter(span -> span.getName().equals(name)).toList();
    assertThat(found).as("spans named %s among %s", name, sdk.getSpans()).hasSize(1);
    return found.getFirst();
  }

  private static void answer(Harness harness) {
    harness.tick();
    harness.generator.last().delta("4", 4);
    harness.advance(LATER);
    harness.generator.last().done("4", new ToolCall(0, "f", "{}", null));
    harness.advance(LATER);
  }

  @Test
  void shouldCarryTheContextUnchangedWithoutAnSdk() {
    try (Harness first = new Harness()) {
      send(first, "p1");
      first.tick();
      first.generator.last().delta("4", 4);
      first.tick();
      // Through the stores, as after a crash.
      try (Harness harness = first.successor()) {
        answer(harness);
        TestRecord<?, ?> completion = harness.completions().getFirst();
        TestRecord<?, ?> call = harness.toolCalls().getFirst();
        TestRecord<?, ?> chunk = harness.chunks().getFirst();
        CONTEXT.forEach(
            (name, value) -> {
              assertThat(header(completion, name)).isEqualTo(value);
              assertThat(header(call, name)).isEqualTo(value);
              assertThat(header(chunk, name)).isEqualTo(value);
            });
      }
    }
  }

  @Test
  void shouldKeepNothingOfAPromptWithoutAnSdk() {
    PromptRecord record = new PromptRecord("t", 0, 0, 0, 0, new byte[0], List.of(), new byte[0]);
    assertThat(new Tracing(OpenTelemetry.noop(), "g").process(record, "p1")).isNull();
    assertThat(new Tracing(sdk.getOpenTelemetry(), "g").process(record, "p1")).isNotNull();
  }

  @Test
  void shouldBeTheParentOfWhatFollowsWithAnSdk() {
    try (Harness harness = new Harness(sdk.getOpenTelemetry())) {
      send(harness, "p1");
      answer(harness);
      SpanData process = span("process millrace.prompts");
      assertThat(process.getKind()).isEqualTo(SpanKind.CONSUMER);
      assertThat(process.getTraceId()).isEqualTo(TRACE);
      assertThat(process.getParentSpanId()).isEqualTo(PARENT);
      assertThat(process.getAttributes().get(AttributeKey.stringKey("millrace.prompt.id")))
          .isEqualTo("p1");
      String expected = "00-" + TRACE + "-" + process.getSpanId() + "-01";
      TestRecord<?, ?> completion = harness.completions().getFirst();
      assertThat(header(completion, "traceparent")).isEqualTo(expected);
      assertThat(header(completion, "tracestate")).isEqualTo("vendor=1");
      assertThat(header(completion, "baggage")).isEqualTo("user=7");
      assertThat(header(harness.toolCalls().getFirst(), "traceparent")).isEqualTo(expected);
      assertThat(header(harness.chunks().getFirst(), "traceparent")).isEqualTo(expected);
    }
  }

  @Test
  void shouldDescribeTheGenerationAsTheConventionsHaveIt() {
    try (Harness harness = new Harness(sdk.getOpenTelemetry())) {
      send(harness, "p1");
      answer(harness);
      SpanData generate = span("chat " + ScriptedGenerator.MODEL);
      assertThat(generate.getParentSpanId())
          .isEqualTo(span("process millrace.prompts").getSpanId());
      Map<AttributeKey<?>, Object> attributes = generate.getAttributes().asMap();
      assertThat(attributes)
          .containsEntry(AttributeKey.stringKey("gen_ai.operation.name"), "chat")
          .containsEntry(AttributeKey.stringKey("gen_ai.request.model"), ScriptedGenerator.MODEL)
          .containsEntry(AttributeKey.longKey("gen_ai.usage.input_tokens"), 7L)
          .containsEntry(AttributeKey.longKey("gen_ai.usage.output_tokens"), 5L)
          .containsEntry(
              AttributeKey.stringArrayKey("gen_ai.response.finish_reasons"), List.of("stop"));
      assertThat(attributes.toString()).as("no prompt text").doesNotContain("2 + 2");
    }
  }

  @Test
  void shouldShowEachAttemptAndTheDeadLetter() {
    try (Harness harness = new Harness(sdk.getOpenTelemetry(), "engine.attempts", "1")) {
      send(harness, "p1");
      harness.generator.last().failed(Failure.ENGINE, "broken");
      harness.advance(LATER);
      SpanData generate = span("chat " + ScriptedGenerator.MODEL);
      assertThat(generate.getStatus().getStatusCode()).isEqualTo(StatusCode.ERROR);
      SpanData process = span("process millrace.prompts");
      assertThat(process.getStatus().getStatusCode()).isEqualTo(StatusCode.ERROR);
      assertThat(process.getAttributes().get(AttributeKey.stringKey("error.type")))
          .isEqualTo("ENGINE_FAILED");
      assertThat(header(harness.deadLetters().getFirst(), "traceparent"))
          .as("as it came")
          .isEqualTo(CONTEXT.get("traceparent"));
    }
  }

  @Test
  void shouldShowARecordThatIsRefusedAtOnce() {
    try (Harness harness = new Harness(sdk.getOpenTelemetry())) {
      harness.send(null, new byte[] {1}, CONTEXT);
      assertThat(span("process millrace.prompts").getParentSpanId()).isEqualTo(PARENT);
    }
  }

  @Test
  void shouldEndTheSpansOfATaskThatMoves() {
    try (Harness harness = new Harness(sdk.getOpenTelemetry())) {
      send(harness, "p1");
      harness.tick();
      harness.closeDriver();
      assertThat(sdk.getSpans()).extracting(SpanData::getName).hasSize(2);
    }
  }

  @Test
  void shouldNotCarryAContextThatIsTooLong() {
    try (Harness harness = new Harness()) {
      harness.send(
          null,
          harness.bytes(Harness.prompt("p1").build()),
          Map.of("baggage", "x".repeat(9000), "traceparent", "00-1"));
      harness.generator.last().done("4");
      harness.tick();
      assertThat(header(harness.completions().getFirst(), "traceparent")).isEmpty();
    }
  }

  @ParameterizedTest
  @ValueSource(booleans = {true, false})
  void shouldSetOnlyThatPromptAsideThatHitsADefect(boolean whenTakenIn) {
    try (OpenTelemetrySdk broken =
            OpenTelemetrySdk.builder()
                .setTracerProvider(
                    SdkTracerProvider.builder().addSpanProcessor(new Broken(whenTakenIn)).build())
                .build();
        Harness harness = new Harness(broken)) {
      send(harness, "p1");
      if (!whenTakenIn) {
        answer(harness);
      }
      send(harness, "p2");
      assertThat(harness.deadLetters())
          .extracting(letter -> header(letter, DeadLetters.REASON), letter -> letter.key())
          .containsExactly(tuple("INTERNAL", "p1".getBytes(UTF_8)));
      answer(harness);
      assertThat(harness.completions())
          .extracting(completion -> completion.value().getPromptId())
          .containsExactly("p2");
      harness.assertNothingKept();
    }
  }

  /** An SDK with a part that throws once: at the beginning of a span, or at the end of one. */
  private static final class Broken implements SpanProcessor {
    private final boolean atStart;
    private boolean thrown;

    Broken(boolean atStart) {
      this.atStart = atStart;
    }

    private void hit(boolean start) {
      if (!thrown && start == atStart) {
        thrown = true;
        throw new IllegalStateException("a defect");
      }
    }

    @Override
    public void onStart(Context parent, ReadWriteSpan span) {
      hit(true);
    }

    @Override
    public boolean isStartRequired() {
      return true;
    }

    @Override
    public void onEnd(ReadableSpan span) {
      hit(false);
    }

    @Override
    public boolean isEndRequired() {
      return true;
    }
  }
}
