package dev.millrace.topology;

import dev.millrace.inference.api.GenerateEvent;
import dev.millrace.inference.api.GenerateRequest;
import dev.millrace.inference.api.Prompt;
import dev.millrace.inference.api.SamplingParams;
import dev.millrace.topology.DeadLetters.Reason;
import io.opentelemetry.api.OpenTelemetry;
import io.opentelemetry.api.common.AttributeKey;
import io.opentelemetry.api.trace.Span;
import io.opentelemetry.api.trace.SpanBuilder;
import io.opentelemetry.api.trace.SpanKind;
import io.opentelemetry.api.trace.StatusCode;
import io.opentelemetry.api.trace.Tracer;
import io.opentelemetry.api.trace.TracerProvider;
import io.opentelemetry.context.Context;
import io.opentelemetry.context.propagation.TextMapGetter;
import io.opentelemetry.context.propagation.TextMapPropagator;
import io.opentelemetry.context.propagation.TextMapSetter;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Locale;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.Headers;
import org.jspecify.annotations.Nullable;

/**
 * Spans of the worker's own, through OpenTelemetry's API: one for each prompt from taking it in to
 * its outcome, and below it one for each attempt of the engine, with the attributes of the GenAI
 * semantic conventions. Without an SDK nothing is recorded, and a prompt's trace context goes on as
 * it came. Prompts and answers are no attributes. Safe for several threads; a {@link PromptTrace}
 * belongs to the stream thread.
 */
final class Tracing {
  private static final TextMapGetter<List<Header>> READ =
      new TextMapGetter<>() {
        @Override
        public Iterable<String> keys(List<Header> headers) {
          return headers.stream().map(Header::key).toList();
        }

        @Override
        public @Nullable String get(@Nullable List<Header> headers, String name) {
          byte[] value = headers == null ? null : Carried.last(headers, name);
          return value == null ? null : new String(value, StandardCharsets.UTF_8);
        }
      };

  private static final TextMapSetter<Headers> WRITE =
      (headers, name, value) -> {
        if (headers != null) {
          headers.remove(name).add(name, value.getBytes(StandardCharsets.UTF_8));
        }
      };

  private static final AttributeKey<List<String>> FINISH_REASONS =
      AttributeKey.stringArrayKey("gen_ai.response.finish_reasons");

  private final Tracer tracer;
  private final TextMapPropagator propagator;

  /** Whether there is nobody to tell. */
  private final boolean off;

  private final String group;

  /**
   * @param group the workers' consumer group
   */
  Tracing(OpenTelemetry telemetry, String group) {
    this.tracer = telemetry.getTracer("dev.millrace");
    this.propagator = telemetry.getPropagators().getTextMapPropagator();
    this.group = group;
    this.off =
        tracer == TracerProvider.noop().get("dev.millrace")
            && propagator == TextMapPropagator.noop();
  }

  /** A prompt is being answered, by this owner of its task; null where nothing is recorded. */
  @Nullable PromptTrace process(PromptRecord record, String id) {
    if (off) {
      return null;
    }
    Context parent = propagator.extract(Context.root(), Carried.trace(record), READ);
    SpanBuilder span =
        tracer
            .spanBuilder("process " + record.topic())
            .setParent(parent)
            .setSpanKind(SpanKind.CONSUMER)
            .setAttribute("messaging.system", "kafka")
            .setAttribute("messaging.operation.name", "process")
            .setAttribute("messaging.operation.type", "process")
            .setAttribute("messaging.destination.name", record.topic())
            .setAttribute(
                "messaging.destination.partition.id", Integer.toString(record.partition()))
            .setAttribute("messaging.kafka.offset", record.offset())
            .setAttribute("messaging.consumer.group.name", group);
    if (!id.isEmpty()) {
      span.setAttribute("millrace.prompt.id", id);
    }
    return new PromptTrace(parent.with(span.startSpan()));
  }

  /** The trace of one prompt under one owner of its task. */
  final class PromptTrace {
    private final Context context;
    private final Span process;
    private @Nullable Span generate;

    private PromptTrace(Context context) {
      this.context = context;
      this.process = Span.fromContext(context);
    }

    /** The engine is given the prompt. */
    void generating(GenerateRequest request, String model, int attempt) {
      String operation = request.prompt() instanceof Prompt.Chat ? "chat" : "text_completion";
      SamplingParams sampling = request.sampling();
      generate =
          tracer
              .spanBuilder(operation + " " + model)
              .setParent(context)
              // The model runs in this process.
              .setSpanKind(SpanKind.INTERNAL)
              .setAttribute("gen_ai.operation.name", operation)
              .setAttribute("gen_ai.provider.name", "millrace")
              .setAttribute("gen_ai.request.model", model)
              .setAttribute("gen_ai.request.max_tokens", sampling.maxTokens())
              .setAttribute("gen_ai.request.temperature", sampling.temperature())
              .setAttribute("gen_ai.request.top_p", sampling.topP())
              .setAttribute("gen_ai.request.seed", sampling.seed())
              .setAttribute("millrace.attempt", attempt)
              .setAttribute("millrace.resumed_tokens", request.resume().length)
              .startSpan();
    }

    /** The engine has answered. */
    void generated(GenerateEvent.Done done, String model) {
      Span span = generate;
      if (span == null) {
        return;
      }
      generate = null;
      span.setAttribute("gen_ai.response.model", model);
      span.setAttribute(FINISH_REASONS, List.of(done.finish().name().toLowerCase(Locale.ROOT)));
      span.setAttribute("gen_ai.usage.input_tokens", done.usage().prompt());
      span.setAttribute("gen_ai.usage.cache_read.input_tokens", done.usage().cached());
      span.setAttribute("gen_ai.usage.output_tokens", done.usage().completion());
      span.end();
    }

    /** The engine has failed it, for now or for good. */
    void failed(GenerateEvent.Failed failed) {
      Span span = generate;
      if (span != null) {
        generate = null;
        span.setAttribute("error.type", failed.failure().name());
        span.setStatus(StatusCode.ERROR);
        span.end();
      }
    }

    /** Puts the context below which readers of an output go on over the one that came in. */
    void onto(Headers headers) {
      propagator.inject(context, headers, WRITE);
    }

    /** What runs within it is below the prompt's span, whatever else instruments it. */
    void run(Runnable work) {
      try (var scope = context.makeCurrent()) {
        work.run();
      }
    }

    /** It ends as a dead letter. */
    void deadLetter(Reason reason) {
      process.setAttribute("error.type", reason.name());
      process.setStatus(StatusCode.ERROR);
    }

    /** Its outcome has been sent, or another owner goes on with it. */
    void end() {
      Span open = generate;
      if (open != null) {
        generate = null;
        open.end();
      }
      process.end();
    }
  }
}
