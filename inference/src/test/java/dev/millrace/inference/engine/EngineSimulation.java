package dev.millrace.inference.engine;

import dev.millrace.inference.api.FinishReason;
import dev.millrace.inference.api.GenerateEvent;
import dev.millrace.inference.api.SamplingParams;
import dev.millrace.inference.api.Scheduling;
import dev.millrace.inference.api.TokenLogprob;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import org.jspecify.annotations.Nullable;

/**
 * The real engine on a runner that only says how long each step would take: what a rule of
 * admission comes to, in minutes of a card, within seconds. The times are of an H200 with Nano-8B
 * in FP8, fitted to six measured runs (docs/performance.md). Run by hand: {@code java -cp …
 * dev.millrace.inference.engine.EngineSimulation [TABLE…]}.
 */
final class EngineSimulation {
  private static final int BLOCK = 16;
  private static final int BLOCKS = 124_113;
  private static final int STOP = 1;
  private static final int WORD = 7;

  /** Answer lengths and limits of a load; request i is the i-th of each. */
  private record Load(String name, int[] prompts, int[] answers, int[] limits, boolean stops) {}

  private EngineSimulation() {}

  public static void main(String[] args) {
    List<String> tables = args.length == 0 ? List.of("fit", "rows", "real") : List.of(args);
    System.out.println(
        "load                      most budget   steps   seqs  preempt recomputed   tok/s       s"
            + "   while some wait: tok/s  memory   host µs");
    for (String table : tables) {
      switch (table) {
        case "fit" -> fit();
        case "rows" -> rows();
        case "real" -> realistic();
        default -> throw new IllegalArgumentException(table);
      }
    }
  }

  /** The runs that were measured. */
  private static void fit() {
    run(even(8192, 128, 128), 2048, 8192);
    run(even(1024, 128, 2048), 1024, 8192);
    run(even(3000, 1000, 1000), 1024, 8192);
    run(even(1000, 2048, 128), 256, 8192);
    run(even(500, 2048, 2048), 500, 8192);
    run(even(74, 20000, 2000), 74, 8192);
  }

  private static void rows() {
    for (int most : new int[] {1024, 2048, 4096}) {
      run(even(16384, 128, 128), most, 8192);
    }
    for (int most : new int[] {750, 1024, 1536}) {
      run(even(3000, 128, 2048), most, 8192);
    }
    for (int most : new int[] {750, 1024, 1280, 1536}) {
      run(even(3000, 1000, 1000), most, 8192);
    }
    for (int most : new int[] {256, 512, 1024}) {
      run(even(3000, 2048, 128), most, 8192);
    }
    for (int most : new int[] {375, 500, 768}) {
      run(even(1500, 2048, 2048), most, 8192);
    }
    for (int most : new int[] {75, 100, 128}) {
      run(even(300, 20000, 2000), most, 8192);
    }
  }

  private static void realistic() {
    for (int most : new int[] {1024, 2048}) {
      run(logNormal("long limits", 8000, 500, 200, 4096, 1), most, 8192);
      run(logNormal("longer answers", 4000, 500, 1000, 16_384, 2), most, 8192);
      run(shifting(6000, 3), most, 8192);
    }
    run(logNormal("few and long", 300, 20_000, 5000, 60_000, 4), 256, 8192);
  }

  private static Load even(int count, int prompt, int answer) {
    int[] prompts = new int[count];
    int[] answers = new int[count];
    Arrays.fill(prompts, prompt);
    Arrays.fill(answers, answer);
    return new Load(prompt + "/" + answer + " x " + count, prompts, answers, answers, false);
  }

  private static Load logNormal(
      String name, int count, int prompt, int answer, int limit, int seed) {
    Random random = new Random(seed);
    int[] prompts = new int[count];
    int[] answers = new int[count];
    int[] limits = new int[count];
    for (int i = 0; i < count; i++) {
      prompts[i] = (int) Math.clamp(prompt * Math.exp(random.nextGaussian()), 1, 60_000);
      answers[i] = (int) Math.clamp(answer * Math.exp(random.nextGaussian()), 1, limit);
      limits[i] = limit;
    }
    return new Load(name + " x " + count, prompts, answers, limits, true);
  }

  /** Short answers, and then all at once ten times as long. */
  private static Load shifting(int count, int seed) {
    Load first = logNormal("", count, 500, 150, 8192, seed);
    Load then = logNormal("", count, 500, 1500, 8192, seed + 1);
    int[] answers = first.answers.clone();
    System.arraycopy(then.answers, count / 2, answers, count / 2, count - count / 2);
    return new Load("shifting x " + count, first.prompts, answers, first.limits, true);
  }

  private static void run(Load load, int maxSequences, int budget) {
    EngineConfig config =
        EngineConfig.defaults()
            .withTokenBudget(budget)
            .withMaxSequences(maxSequences)
            .withMaxChunk(budget)
            .withLowShare(0);
    Clock clock = new Clock(load);
    Engine engine = new Engine(clock, config, false);
    List<Ended> ended = new ArrayList<>();
    Random random = new Random(9);
    long ideal = 0;
    for (int i = 0; i < load.prompts.length; i++) {
      int[] prompt = new int[load.prompts[i]];
      Arrays.setAll(prompt, j -> 10 + random.nextInt(100_000));
      SamplingParams sampling =
          new SamplingParams(0, 1, 0, 0, 1, 0, 0, i, load.limits[i], 0, List.of(), !load.stops, -1);
      ended.add(new Ended());
      engine.submit(
          new TokenRequest("r" + i, prompt, new int[0], sampling, new int[] {STOP}, Scheduling.ANY),
          ended.getLast());
      ideal += load.prompts[i] + load.answers[i] - 1;
    }
    long start = System.nanoTime();
    double held = 0;
    long loadedTokens = 0;
    double loadedSeconds = 0;
    while (engine.round()) {
      if (engine.stats().waiting() > 0) {
        held += engine.stats().kvUse() * (clock.seconds - loadedSeconds);
        loadedTokens = engine.stats().generated();
        loadedSeconds = clock.seconds;
      }
    }
    double host = (System.nanoTime() - start) / 1e3;
    long tokens = 0;
    for (int i = 0; i < ended.size(); i++) {
      int expected = load.answers[i] == load.limits[i] ? load.limits[i] : load.answers[i] - 1;
      if (ended.get(i).reason == null || ended.get(i).tokens != expected) {
        throw new AssertionError("request " + i + " of " + load.name + ": " + ended.get(i));
      }
      tokens += ended.get(i).tokens;
    }
    Engine.Work work = engine.work();
    System.out.printf(
        "%-24s %5d %6d %7d %6.0f %8d %10d %7.0f %7.1f %24.0f  %6.2f  %8.1f%n",
        load.name,
        maxSequences,
        budget,
        work.steps(),
        (double) work.members() / work.steps(),
        engine.counters().preemptions(),
        Math.max(0, work.tokens() - ideal),
        tokens / clock.seconds,
        clock.seconds,
        loadedTokens / loadedSeconds,
        held / loadedSeconds,
        host / work.steps());
    if (Boolean.getBoolean("terms")) {
      System.out.println("  terms " + clock.terms());
    }
  }

  private static final class Ended implements TokenListener {
    int tokens;
    @Nullable Object reason;

    @Override
    public void onStarted(int cachedTokens) {}

    @Override
    public void onToken(int token, @Nullable TokenLogprob logprob) {
      tokens++;
    }

    @Override
    public void onFinished(FinishReason finish) {
      reason = finish;
    }

    @Override
    public void onFailed(GenerateEvent.Failure failure, String message) {
      throw new AssertionError(message);
    }

    @Override
    public String toString() {
      return tokens + " tokens, " + reason;
    }
  }

  /** Adds up modelled step times; an answer's length stands in its load. */
  private static final class Clock implements Runner {
    final Load load;
    double seconds;
    double products;
    double attention;
    double prefill;
    double tokens;
    double rows;
    long steps;

    Clock(Load load) {
      this.load = load;
    }

    @Override
    public Info info() {
      return new Info(128_256, 131_072, BLOCK, BLOCKS, 2);
    }

    @Override
    public StepHandle submit(Batch batch) {
      int[] sampled = new int[batch.logitCount];
      double contexts = 0;
      double pairs = 0;
      int row = 0;
      for (int i = 0; i < batch.sequences; i++) {
        int count = batch.queryStart[i + 1] - batch.queryStart[i];
        int length = batch.contextLength[i];
        if (count == 1) {
          contexts += length;
        } else {
          pairs += count * (length - count / 2.0);
        }
        if (row < batch.logitCount && batch.logitRows[row] == batch.queryStart[i + 1] - 1) {
          int index = (int) batch.sampling[row].params().seed();
          // The last of an answer that stops is the stop token, which nobody hears.
          int generated = length - load.prompts[index] + 1;
          boolean ends = load.stops && generated == load.answers[index];
          sampled[row++] = ends && load.answers[index] < load.limits[index] ? STOP : WORD;
        }
      }
      add(batch, contexts, pairs);
      StepHandle.Result result =
          new StepHandle.Result(sampled, new @Nullable TokenLogprob[sampled.length]);
      return () -> result;
    }

    private void add(Batch batch, double contexts, double pairs) {
      // Weights are read or multiplied, whichever takes longer.
      double product = Math.max(2.4e-3, batch.tokenCount * 2 * 7.0e9 / 1.3e15);
      double read = contexts * 65_536 / 3.48e12;
      double prefix = pairs * 4 * 4096 * 32 / 380e12;
      double row = batch.logitCount * 2.0 * 128_256 * 4096 / 600e12;
      products += product;
      attention += read;
      prefill += prefix;
      tokens += batch.tokenCount;
      rows += row;
      steps++;
      seconds += product + read + prefix + 0.5e-3 + batch.tokenCount * 1.75e-6 + 0.3e-3 + row;
    }

    String terms() {
      return "%.3f %.3f %.3f %.0f %.0f %.3f %.3f"
          .formatted(products, attention, prefill, tokens, (double) steps, rows, seconds);
    }

    @Override
    public void close() {}
  }
}
