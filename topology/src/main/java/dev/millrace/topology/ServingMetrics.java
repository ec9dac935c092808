package dev.millrace.topology;

import dev.millrace.inference.api.GenerateEvent;
import dev.millrace.inference.api.Generator;
import dev.millrace.schemas.CompletionFinish;
import io.micrometer.core.instrument.Counter;
import io.micrometer.core.instrument.DistributionSummary;
import io.micrometer.core.instrument.FunctionCounter;
import io.micrometer.core.instrument.Gauge;
import io.micrometer.core.instrument.MeterRegistry;
import io.micrometer.core.instrument.Tags;
import io.micrometer.core.instrument.Timer;
import java.time.Duration;
import java.util.Arrays;
import java.util.concurrent.TimeUnit;
import java.util.function.Supplier;
import java.util.function.ToDoubleFunction;

/**
 * What serving a model looks like from outside, under names that dashboards know: those of vLLM's
 * {@code /metrics} (version 0.12, with its buckets) and those of OpenTelemetry's conventions for
 * generative AI (version 1.38). Safe for several threads; never called on the engine's thread.
 */
final class ServingMetrics {
  private static final double[] LATENCY = {
    0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680
  };
  private static final double[] FIRST_TOKEN = {
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40,
    80, 160, 640, 2560
  };
  private static final double[] NEXT_TOKEN = {
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80
  };
  private static final double[] OTEL_DURATION = {
    0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92
  };
  private static final double[] OTEL_FIRST_TOKEN = Arrays.copyOf(FIRST_TOKEN, 16);
  private static final double[] OTEL_NEXT_TOKEN = Arrays.copyOf(NEXT_TOKEN, 13);
  private static final double[] OTEL_TOKENS = {
    1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864
  };

  private final MeterRegistry registry;
  private final Tags vllm;
  private final Tags genAi;
  private final Counter promptTokens;
  private final Counter generationTokens;
  private final Counter cacheQueries;
  private final Counter cacheHits;
  private final Counter[] success = new Counter[CompletionFinish.values().length];
  private final Timer[] firstToken;
  private final Timer[] betweenTokens;
  private final Timer perToken;
  private final Timer perOutputToken;
  private final Timer endToEnd;
  private final Timer queued;
  private final Timer requests;
  private final DistributionSummary input;
  private final DistributionSummary output;

  /**
   * @param model the name that prompts ask for
   */
  ServingMetrics(MeterRegistry registry, String model) {
    this.registry = registry;
    this.vllm = Tags.of("model_name", model, "engine", "0");
    this.genAi =
        Tags.of(
            "gen_ai.operation.name",
            "chat",
            "gen_ai.provider.name",
            "millrace",
            "gen_ai.request.model",
            model,
            "gen_ai.response.model",
            model);
    promptTokens = counter("vllm:prompt_tokens", "Tokens of the prompts that were answered");
    generationTokens = counter("vllm:generation_tokens", "Generated tokens");
    cacheQueries = counter("vllm:prefix_cache_queries", "Tokens looked up in the prefix cache");
    cacheHits = counter("vllm:prefix_cache_hits", "Tokens found in the prefix cache");
    for (CompletionFinish finish : CompletionFinish.values()) {
      success[finish.ordinal()] =
          Counter.builder("vllm:request_success")
              .description("Prompts that came to a completion")
              .tags(vllm.and("finished_reason", reason(finish)))
              .register(registry);
    }
    firstToken =
        new Timer[] {
          timer(
              "vllm:time_to_first_token", "From submission to the first token", FIRST_TOKEN, vllm),
          timer(
              "gen_ai.server.time_to_first_token",
              "From submission to the first token",
              OTEL_FIRST_TOKEN,
              genAi)
        };
    betweenTokens =
        new Timer[] {
          timer("vllm:inter_token_latency", "Between two tokens of an answer", NEXT_TOKEN, vllm)
        };
    perToken =
        timer(
            "vllm:request_time_per_output_token",
            "Mean time between the tokens of an answer",
            NEXT_TOKEN,
            vllm);
    endToEnd =
        timer("vllm:e2e_request_latency", "From taking a prompt in to its end", LATENCY, vllm);
    queued = timer("vllm:request_queue_time", "From submission to the first step", LATENCY, vllm);
    requests =
        timer(
            "gen_ai.server.request.duration",
            "From taking a prompt in to its end",
            OTEL_DURATION,
            genAi);
    input = tokenUsage("input");
    output = tokenUsage("output");
    perOutputToken =
        timer(
            "gen_ai.server.time_per_output_token",
            "Mean time between the tokens of an answer",
            OTEL_NEXT_TOKEN,
            genAi);
  }

  private static String reason(CompletionFinish finish) {
    return switch (finish) {
      case LENGTH -> "length";
      case CANCELLED, EXPIRED -> "abort";
      default -> "stop";
    };
  }

  private Counter counter(String name, String description) {
    return Counter.builder(name).description(description).tags(vllm).register(registry);
  }

  private Timer timer(String name, String description, double[] seconds, Tags tags) {
    return Timer.builder(name)
        .description(description)
        .tags(tags)
        .serviceLevelObjectives(
            Arrays.stream(seconds)
                .mapToObj(s -> Duration.ofNanos(Math.round(s * 1e9)))
                .toArray(Duration[]::new))
        .register(registry);
  }

  private DistributionSummary tokenUsage(String type) {
    return DistributionSummary.builder("gen_ai.client.token.usage")
        .description("Tokens of a prompt or of an answer")
        .tags(genAi.and("gen_ai.token.type", type))
        .serviceLevelObjectives(OTEL_TOKENS)
        .register(registry);
  }

  /** Shows the engine's state as well. */
  void watch(Generator generator, Supplier<Generator.Status> status) {
    gauge("vllm:num_requests_running", "Prompts in steps", status, s -> s.get().running());
    gauge("vllm:num_requests_waiting", "Prompts that wait", status, s -> s.get().waiting());
    gauge("vllm:kv_cache_usage_perc", "Share of KV blocks in use", status, s -> s.get().kvUse());
    FunctionCounter.builder("vllm:num_preemptions", generator, g -> g.counters().preemptions())
        .description("Prompts that had to give their memory back and begin again")
        .tags(vllm)
        .register(registry);
  }

  private <T> void gauge(String name, String description, T of, ToDoubleFunction<T> value) {
    Gauge.builder(name, of, value)
        .description(description)
        .tags(vllm)
        .strongReference(true)
        .register(registry);
  }

  /** A first token, so long after the prompt was given to the engine. */
  void firstToken(long nanos) {
    for (Timer timer : firstToken) {
      timer.record(nanos, TimeUnit.NANOSECONDS);
    }
  }

  /** So many tokens more, each so long after the one before it. */
  void tokens(int count, long nanosEach) {
    generationTokens.increment(count);
    for (int i = 0; i < count; i++) {
      for (Timer timer : betweenTokens) {
        timer.record(nanosEach, TimeUnit.NANOSECONDS);
      }
    }
  }

  /** Tokens that came with a first one, whose time between them nobody saw. */
  void tokens(int count) {
    generationTokens.increment(count);
  }

  /** A prompt has its completion, so many milliseconds after it was taken in. */
  void completed(CompletionFinish finish, GenerateEvent.Done done, long millis) {
    GenerateEvent.Usage usage = done.usage();
    GenerateEvent.Timings timings = done.timings();
    success[finish.ordinal()].increment();
    promptTokens.increment(usage.prompt());
    cacheQueries.increment(usage.prompt());
    cacheHits.increment(usage.cached());
    endToEnd.record(millis, TimeUnit.MILLISECONDS);
    requests.record(millis, TimeUnit.MILLISECONDS);
    queued.record(timings.queued(), TimeUnit.NANOSECONDS);
    input.record(usage.prompt());
    output.record(usage.completion());
    // The time is that of this attempt, and so must be the tokens.
    if (timings.firstToken() > 0 && usage.generated() > 1) {
      long mean = (timings.total() - timings.firstToken()) / (usage.generated() - 1);
      perToken.record(mean, TimeUnit.NANOSECONDS);
      perOutputToken.record(mean, TimeUnit.NANOSECONDS);
    }
  }
}
