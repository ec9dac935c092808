package dev.millrace.topology.cli;

import dev.millrace.inference.backend.cpu.CpuRunner;
import dev.millrace.inference.bench.Load;
import dev.millrace.inference.engine.EngineConfig;
import picocli.CommandLine.Option;

/** What requests a benchmark sends, and how the engine schedules them. */
@SuppressWarnings("NullAway.Init")
final class LoadOptions {
  @Option(
      names = "--isl",
      paramLabel = "N",
      defaultValue = "128",
      description = "Tokens of each prompt (default: ${DEFAULT-VALUE}).")
  private int inputTokens;

  @Option(
      names = "--osl",
      paramLabel = "N",
      defaultValue = "128",
      description =
          "Tokens of each answer; the model's end of text is ignored (default:"
              + " ${DEFAULT-VALUE}).")
  private int outputTokens;

  @Option(
      names = "--requests",
      paramLabel = "N",
      defaultValue = "64",
      description = "Requests to serve (default: ${DEFAULT-VALUE}).")
  private int requests;

  @Option(
      names = "--concurrency",
      paramLabel = "N",
      defaultValue = "0",
      description = "Most requests at one time (default: all at once).")
  private int concurrency;

  @Option(
      names = "--max-sequences",
      paramLabel = "N",
      defaultValue = "256",
      description = "engine.max.sequences (default: ${DEFAULT-VALUE}).")
  private int maxSequences;

  @Option(
      names = "--token-budget",
      paramLabel = "N",
      defaultValue = "2048",
      description = "engine.token.budget (default: ${DEFAULT-VALUE}).")
  private int tokenBudget;

  @Option(
      names = "--max-chunk",
      paramLabel = "N",
      defaultValue = "1024",
      description = "engine.max.chunk (default: ${DEFAULT-VALUE}).")
  private int maxChunk;

  @Option(
      names = "--prefix-cache",
      paramLabel = "BOOL",
      defaultValue = "true",
      arity = "1",
      description = "engine.prefix.cache (default: ${DEFAULT-VALUE}).")
  private boolean prefixCache;

  Load load(long seed, int waiting) {
    try {
      return new Load(requests, concurrency, inputTokens, outputTokens, waiting, seed);
    } catch (IllegalArgumentException e) {
      throw new Failures.CommandFailedException(Failures.describe(e), e);
    }
  }

  EngineConfig engine() {
    try {
      EngineConfig defaults = EngineConfig.defaults();
      return new EngineConfig(
          maxSequences,
          tokenBudget,
          maxChunk,
          prefixCache,
          defaults.maxBypass(),
          defaults.stepAttempts(),
          // Those that only wait must not get a share of the work.
          0);
    } catch (IllegalArgumentException e) {
      throw new Failures.CommandFailedException(Failures.describe(e), e);
    }
  }

  /** KV blocks of the CPU backend that the requests can need at one time. */
  long blocks() {
    long atOnce = Math.min(maxSequences, concurrency == 0 ? requests : concurrency);
    return Math.max(1, atOnce) * Math.ceilDiv((long) inputTokens + outputTokens, BLOCK);
  }

  private static final int BLOCK = CpuRunner.BLOCK_SIZE;
}
