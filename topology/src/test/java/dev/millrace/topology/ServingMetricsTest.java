package dev.millrace.topology;

import static org.assertj.core.api.Assertions.assertThat;

import dev.millrace.inference.api.FinishReason;
import dev.millrace.inference.api.GenerateEvent;
import dev.millrace.schemas.CompletionFinish;
import io.micrometer.prometheusmetrics.PrometheusConfig;
import io.micrometer.prometheusmetrics.PrometheusMeterRegistry;
import java.util.List;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** The names and labels that dashboards ask for, as Prometheus gets them. */
class ServingMetricsTest {
  private static final long MS = TimeUnit.MILLISECONDS.toNanos(1);

  private final PrometheusMeterRegistry registry =
      new PrometheusMeterRegistry(PrometheusConfig.DEFAULT);
  private final ServingMetrics metrics = new ServingMetrics(registry, "nano");

  private void completed(int tokens, int resumed, long firstToken, long total) {
    metrics.completed(
        CompletionFinish.LENGTH,
        new GenerateEvent.Done(
            FinishReason.LENGTH,
            "",
            "",
            List.of(),
            new GenerateEvent.Usage(100, 64, tokens, 0, resumed),
            new GenerateEvent.Timings(10 * MS, firstToken, total),
            List.of()),
        700);
  }

  ServingMetricsTest() {
    ScriptedGenerator generator = new ScriptedGenerator();
    metrics.watch(generator, generator::status);
    metrics.firstToken(30 * MS);
    metrics.tokens(1);
    metrics.tokens(4, 20 * MS);
    completed(9, 4, 30 * MS, 110 * MS);
  }

  @AfterEach
  void close() {
    registry.close();
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "vllm:num_requests_running{engine=\"0\",model_name=\"nano\"} 0.0",
        "vllm:num_requests_waiting{engine=\"0\",model_name=\"nano\"} 0.0",
        "vllm:kv_cache_usage_perc{engine=\"0\",model_name=\"nano\"} 0.0",
        "vllm:num_preemptions_total{engine=\"0\",model_name=\"nano\"} 0.0",
        "vllm:prompt_tokens_total{engine=\"0\",model_name=\"nano\"} 100.0",
        "vllm:generation_tokens_total{engine=\"0\",model_name=\"nano\"} 5.0",
        "vllm:prefix_cache_queries_total{engine=\"0\",model_name=\"nano\"} 100.0",
        "vllm:prefix_cache_hits_total{engine=\"0\",model_name=\"nano\"} 64.0",
        "vllm:request_success_total{engine=\"0\",finished_reason=\"length\",model_name=\"nano\"}"
            + " 1.0",
        "vllm:request_success_total{engine=\"0\",finished_reason=\"stop\",model_name=\"nano\"} 0.0",
        "vllm:time_to_first_token_seconds_bucket{engine=\"0\",model_name=\"nano\",le=\"0.04\"} 1",
        "vllm:time_to_first_token_seconds_bucket{engine=\"0\",model_name=\"nano\",le=\"0.02\"} 0",
        "vllm:inter_token_latency_seconds_bucket{engine=\"0\",model_name=\"nano\",le=\"0.025\"} 4",
        "vllm:inter_token_latency_seconds_count{engine=\"0\",model_name=\"nano\"} 4",
        "vllm:request_time_per_output_token_seconds_sum{engine=\"0\",model_name=\"nano\"} 0.02\n",
        "vllm:e2e_request_latency_seconds_bucket{engine=\"0\",model_name=\"nano\",le=\"0.8\"} 1",
        "vllm:request_queue_time_seconds_sum{engine=\"0\",model_name=\"nano\"} 0.01",
        "gen_ai_client_token_usage_sum{gen_ai_operation_name=\"chat\","
            + "gen_ai_provider_name=\"millrace\",gen_ai_request_model=\"nano\","
            + "gen_ai_response_model=\"nano\",gen_ai_token_type=\"input\"} 100.0",
        "gen_ai_server_request_duration_seconds_count{gen_ai_operation_name=\"chat\","
            + "gen_ai_provider_name=\"millrace\",gen_ai_request_model=\"nano\","
            + "gen_ai_response_model=\"nano\"} 1",
        "gen_ai_server_time_to_first_token_seconds_count{",
        "gen_ai_server_time_per_output_token_seconds_sum{gen_ai_operation_name=\"chat\","
            + "gen_ai_provider_name=\"millrace\",gen_ai_request_model=\"nano\","
            + "gen_ai_response_model=\"nano\"} 0.02\n"
      })
  void shouldBeShown(String line) {
    assertThat(registry.scrape()).contains(line);
  }

  @Test
  void shouldCountNoTimeBetweenTokensWhereAnAttemptMadeOne() {
    completed(9, 8, 30 * MS, 110 * MS);
    completed(9, 9, 0, 110 * MS);
    assertThat(registry.scrape())
        .contains(
            "vllm:request_success_total{engine=\"0\",finished_reason=\"length\",model_name=\"nano\"}"
                + " 3.0")
        .contains(
            "vllm:request_time_per_output_token_seconds_count{engine=\"0\",model_name=\"nano\"}"
                + " 1\n");
  }

  @Test
  void shouldGiveEachHistogramItsLastBucket() {
    assertThat(registry.scrape())
        .contains(
            "vllm:e2e_request_latency_seconds_bucket{engine=\"0\",model_name=\"nano\",le=\"7680.0\"}")
        .contains("le=\"81.92\"")
        .contains("le=\"6.7108864E7\"");
  }
}
