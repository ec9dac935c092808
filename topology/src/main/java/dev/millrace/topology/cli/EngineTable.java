package dev.millrace.topology.cli;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.millrace.inference.bench.EngineReport;
import dev.millrace.inference.bench.Load;
import dev.millrace.inference.bench.Samples;
import dev.millrace.inference.model.Footprint;
import dev.millrace.inference.model.ModelRunner;
import java.util.Locale;

/** How {@link EngineReport} is shown: to people, and to programs. */
final class EngineTable {
  private static final ObjectMapper JSON = new ObjectMapper();

  private EngineTable() {}

  /** What was run on what. */
  static void head(Screen screen, ModelOptions model, ModelRunner runner) {
    Footprint footprint = runner.footprint();
    screen.line("%s%s", model.path(), model.madeUp() ? ", made-up weights" : "");
    screen.line(
        "%s; weights %s, %.1f MB; KV %d bytes a token, %d blocks of %d",
        runner.describe(),
        format(footprint),
        (footprint.bodyBytes() + footprint.outputBytes()) / 1e6,
        footprint.kvTokenBytes(),
        runner.info().blocks(),
        runner.info().blockSize());
  }

  /** What was asked of it. */
  static void load(Screen screen, Load load) {
    screen.line(
        "%d requests, %s at a time, %d tokens in, %d out%s",
        load.requests(),
        load.concurrency() == 0 ? "all" : "" + load.concurrency(),
        load.inputTokens(),
        load.outputTokens(),
        load.waiting() == 0 ? "" : ", " + load.waiting() + " waiting behind them");
  }

  private static String format(Footprint footprint) {
    return footprint.format().name().toLowerCase(Locale.ROOT);
  }

  static void print(Screen screen, EngineReport report) {
    EngineReport.Steps steps = report.steps();
    EngineReport.Bound bound = report.bound();
    screen.line(
        "output            %.1f tokens/s: %d in %.2f s (with prompts %.1f)",
        report.outputPerSecond(), report.outputTokens(), report.seconds(), report.totalPerSecond());
    screen.line(
        "prefix hits       %d of %d prompt tokens", report.cachedTokens(), report.inputTokens());
    row(screen, "first token", report.firstToken());
    row(screen, "between tokens", report.betweenTokens());
    row(screen, "step", steps.time());
    row(screen, "host, a step", steps.host());
    screen.line(
        "steps             %d, %d of them graphs, of %.1f sequences and %.1f tokens; host %.3f ms"
            + " each on average",
        steps.count(), steps.graphs(), steps.meanSequences(), steps.meanTokens(), steps.hostMean());
    screen.line(
        "device            %s; without a step for %.1f %% of the time",
        steps.occupancy() < 0
            ? "does not say how long it computed"
            : "computed for %.1f %% of the time".formatted(100 * steps.occupancy()),
        100 * steps.empty());
    screen.line(
        "ceilings          read %.1f GB/s, arithmetic %s",
        bound.ceilings().readBytes() / 1e9, flops(bound.ceilings().flops()));
    screen.line(
        "of the roofline   %.1f %%: %.2f s at the least, %.0f %% of it in steps that memory bounds",
        100 * report.ofRoofline(), bound.seconds(), 100 * bound.memoryShare());
  }

  static String flops(double perSecond) {
    return perSecond < 1e12
        ? "%.1f GFLOP/s".formatted(perSecond / 1e9)
        : "%.1f TFLOP/s".formatted(perSecond / 1e12);
  }

  private static void row(Screen screen, String name, Samples.Summary times) {
    screen.line(
        "%-17s p50 %.3f ms, p99 %.3f ms, max %.3f ms, %d of them",
        name, times.p50(), times.p99(), times.max(), times.count());
  }

  static ObjectNode json(ModelOptions model, ModelRunner runner, Load load, EngineReport report) {
    ObjectNode root = JSON.createObjectNode();
    Footprint footprint = runner.footprint();
    root.put("model", model.path().toString());
    root.put("made_up_weights", model.madeUp());
    root.put("device", runner.describe());
    root.put("dtype", format(footprint));
    root.put("weight_bytes", footprint.bodyBytes() + footprint.outputBytes());
    root.put("kv_token_bytes", footprint.kvTokenBytes());
    root.put("kv_blocks", runner.info().blocks());
    root.put("requests", load.requests());
    root.put("concurrency", load.concurrency());
    root.put("isl", load.inputTokens());
    root.put("osl", load.outputTokens());
    root.put("waiting", load.waiting());
    root.put("seed", load.seed());
    root.set("result", json(report));
    return root;
  }

  static ObjectNode json(EngineReport report) {
    ObjectNode root = JSON.createObjectNode();
    EngineReport.Steps steps = report.steps();
    root.put("seconds", report.seconds());
    root.put("output_tokens", report.outputTokens());
    root.put("output_tokens_per_second", report.outputPerSecond());
    root.put("total_tokens_per_second", report.totalPerSecond());
    root.put("prefix_hit_tokens", report.cachedTokens());
    root.set("first_token_ms", json(report.firstToken()));
    root.set("between_tokens_ms", json(report.betweenTokens()));
    root.put("steps", steps.count());
    root.put("graph_steps", steps.graphs());
    root.put("sequences_per_step", steps.meanSequences());
    root.put("tokens_per_step", steps.meanTokens());
    root.set("step_ms", json(steps.time()));
    root.set("host_ms", json(steps.host()));
    root.put("host_mean_ms", steps.hostMean());
    if (steps.occupancy() >= 0) {
      root.put("device_busy", steps.occupancy());
    }
    root.put("device_without_step", steps.empty());
    root.put("ceiling_read_bytes_per_second", report.bound().ceilings().readBytes());
    root.put("ceiling_flops_per_second", report.bound().ceilings().flops());
    root.put("roofline_seconds", report.bound().seconds());
    root.put("roofline_memory_share", report.bound().memoryShare());
    root.put("of_roofline", report.ofRoofline());
    return root;
  }

  private static ObjectNode json(Samples.Summary times) {
    ObjectNode node = JSON.createObjectNode();
    node.put("count", times.count());
    node.put("mean", times.mean());
    node.put("p50", times.p50());
    node.put("p99", times.p99());
    node.put("max", times.max());
    return node;
  }
}
