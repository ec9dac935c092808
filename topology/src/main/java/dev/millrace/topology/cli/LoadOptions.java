package dev.millrace.topology.cli;

import dev.millrace.inference.backend.cpu.CpuRunner;
import dev.millrace.inference.bench.Load;
import dev.millrace.inference.engine.EngineConfig;
import java.util.ArrayList;
import java.util.List;
import picocli.CommandLine.Option;

/** What requests a benchmark sends, and how the engine schedules them. */
@SuppressWarnings("NullAway.Init")
final class LoadOptions {
  @Option(
      names = "--isl",
      paramLabel = "N",
      split = ",",
      defaultValue = "128",
      description = {
        "Tokens of each prompt (default: ${DEFAULT-VALUE}). bench engine takes several of this,",
        "--osl, --requests and --concurrency, with commas: shapes that it serves one after",
        "another."
      })
  private List<Integer> inputTokens;

  @Option(
      names = "--osl",
      paramLabel = "N",
      split = ",",
      defaultValue = "128",
      description =
          "Tokens of each answer; the model's end of text is ignored (default:"
              + " ${DEFAULT-VALUE}).")
  private List<Integer> outputTokens;

  @Option(
      names = "--requests",
      paramLabel = "N",
      split = ",",
      defaultValue = "64",
      description = "Requests to serve (default: ${DEFAULT-VALUE}).")
  private List<Integer> requests;

  @Option(
      names = "--concurrency",
      paramLabel = "N",
      split = ",",
      defaultValue = "0",
      description = "Most requests at one time (default: all at once).")
  private List<Integer> concurrency;

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

  /** Where only one shape is served. */
  Load load(long seed) {
    List<Load> loads = loads(seed, 0);
    if (loads.size() > 1) {
      throw new Failures.CommandFailedException(
          "one shape at a time is served here: give isl, osl, requests and concurrency one number"
              + " each");
    }
    return loads.getFirst();
  }

  /** One for each shape. What is given once holds for all of them. */
  List<Load> loads(long seed, int waiting) {
    int shapes = shapes();
    try {
      List<Load> loads = new ArrayList<>();
      for (int i = 0; i < shapes; i++) {
        loads.add(
            new Load(
                of(requests, i),
                of(concurrency, i),
                of(inputTokens, i),
                of(outputTokens, i),
                waiting,
                seed));
      }
      return loads;
    } catch (IllegalArgumentException e) {
      throw new Failures.CommandFailedException(Failures.describe(e), e);
    }
  }

  private int shapes() {
    List<List<Integer>> lists = List.of(inputTokens, outputTokens, requests, concurrency);
    int shapes = lists.stream().mapToInt(List::size).max().orElseThrow();
    if (lists.stream().anyMatch(numbers -> numbers.size() != 1 && numbers.size() != shapes)) {
      throw new Failures.CommandFailedException(
          "isl, osl, requests and concurrency name %d, %d, %d and %d shapes: each takes one number, or as many as the others"
              .formatted(lists.stream().map(List::size).toArray()));
    }
    return shapes;
  }

  private static int of(List<Integer> numbers, int shape) {
    return numbers.get(numbers.size() == 1 ? 0 : shape);
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
    long most = 1;
    for (Load load : loads(0, 0)) {
      long atOnce = Math.min(maxSequences, load.atOnce());
      long length = (long) load.inputTokens() + load.outputTokens();
      most = Math.max(most, atOnce * Math.ceilDiv(length, BLOCK));
    }
    return most;
  }

  private static final int BLOCK = CpuRunner.BLOCK_SIZE;
}
