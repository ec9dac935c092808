package dev.millrace.inference.engine;

import static org.assertj.core.api.Assertions.assertThat;

import dev.millrace.inference.api.SamplingParams;
import dev.millrace.inference.api.Scheduling;
import dev.millrace.inference.backend.KvFormat;
import dev.millrace.inference.backend.cuda.CudaRunner;
import dev.millrace.inference.backend.cuda.Gpu;
import dev.millrace.inference.backend.cuda.Shapes;
import dev.millrace.inference.checkpoint.WeightFormat;
import dev.millrace.inference.model.ModelSource;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** The engine on a GPU with invariant results: an answer is the same whatever happens around it. */
class EngineOnGpuTest {
  private static final long SEED = 1618;
  private static final int MAX_TOKENS = 40;
  private static final int REQUESTS = 30;

  /** Tokens between those from which answers are resumed. */
  private static final int EVERY = 3;

  @TempDir Path folder;

  /** Prompts of many lengths, some with the same beginning; greedy, sampled, penalised. */
  private static List<TokenRequest> requests() {
    Random random = new Random(SEED);
    int[] shared = random.ints(100, 0, Shapes.vocabulary()).toArray();
    List<TokenRequest> requests = new ArrayList<>();
    for (int i = 0; i < REQUESTS; i++) {
      int length = 1 + random.nextInt(250);
      int[] prompt = random.ints(length, 0, Shapes.vocabulary()).toArray();
      if (i % 5 == 0) {
        System.arraycopy(shared, 0, prompt, 0, Math.min(length, shared.length));
      }
      requests.add(request("p" + i, prompt, new int[0], i));
    }
    return requests;
  }

  private static TokenRequest request(String id, int[] prompt, int[] resume, int i) {
    SamplingParams params =
        switch (i % 3) {
          case 0 -> new SamplingParams(0, 1, 0, 0, 1, 0, 0, 0, MAX_TOKENS, 0, List.of(), true, -1);
          case 1 ->
              new SamplingParams(
                  1, 0.9f, 30, 0, 1, 0, 0, 1000 + i, MAX_TOKENS, 0, List.of(), true, -1);
          default ->
              new SamplingParams(
                  1.3f, 1, 0, 0.02f, 1.2f, 0.5f, 0.3f, i, MAX_TOKENS, 0, List.of(), true, 3);
        };
    return new TokenRequest(id, prompt, resume, params, new int[] {1}, Scheduling.ANY);
  }

  private static List<Recorder> run(Engine engine, List<TokenRequest> requests) throws Exception {
    List<Recorder> recorders = new ArrayList<>();
    for (TokenRequest request : requests) {
      Recorder recorder = new Recorder();
      recorders.add(recorder);
      engine.submit(request, recorder);
    }
    for (Recorder recorder : recorders) {
      assertThat(recorder.end.get(60, TimeUnit.SECONDS)).as(recorder.message).isEqualTo("LENGTH");
      assertThat(recorder.broken).isNull();
    }
    return recorders;
  }

  @ParameterizedTest
  @CsvSource({"BF16, NATIVE", "F8_E4M3, NATIVE", "F8_E4M3, FP8"})
  void shouldAnswerTheSameInAnyBatchAndChunkingWithAHitAndResumed(WeightFormat format, KvFormat kv)
      throws Exception {
    Gpu.require();
    List<TokenRequest> requests = requests();
    EngineConfig full = EngineConfig.defaults().withMaxSequences(64).withTokenBudget(512);
    EngineConfig bare = full.withPrefixCache(false);
    ModelSource shape = Shapes.wide(folder, format, 64);
    try (CudaRunner plain = CudaRunner.open(shape, options(kv, false));
        CudaRunner runner = CudaRunner.open(shape, options(kv, true))) {
      List<List<Integer>> expected = new ArrayList<>();
      try (Engine engine = new Engine(plain, bare)) {
        for (TokenRequest request : requests) {
          expected.add(run(engine, List.of(request)).getFirst().tokens);
        }
      }
      assertThat(expected.stream().flatMap(List::stream).distinct().count()).isGreaterThan(50);
      for (EngineConfig way :
          List.of(
              bare.withMaxSequences(1),
              bare,
              bare.withMaxSequences(7).withTokenBudget(9).withMaxChunk(5),
              bare.withMaxSequences(20).withTokenBudget(64).withMaxChunk(33))) {
        try (Engine engine = new Engine(runner, way)) {
          check(expected, 0, run(engine, requests), way.toString());
        }
      }
      assertThat(runner.graphSteps()).isPositive();
      try (Engine engine = new Engine(runner, full)) {
        run(engine, requests);
        List<Recorder> again = run(engine, requests);
        assertThat(again.stream().mapToInt(r -> r.cached).sum()).isGreaterThan(1000);
        check(expected, 0, again, "with the prefix cache");
      }
      for (int saved = 1; saved < MAX_TOKENS; saved += EVERY) {
        List<TokenRequest> resumed = new ArrayList<>();
        for (int i = 0; i < requests.size(); i++) {
          int[] known = Arrays.copyOf(expected.get(i).stream().mapToInt(t -> t).toArray(), saved);
          resumed.add(request("p" + i, requests.get(i).prompt(), known, i));
        }
        try (Engine engine = new Engine(runner, bare)) {
          check(expected, saved, run(engine, resumed), "resumed from token " + saved);
        }
      }
    }
  }

  /** Alone, an answer is computed kernel by kernel, in company by graphs where there are any. */
  private static CudaRunner.Options options(KvFormat kv, boolean graphs) {
    return new CudaRunner.Options(Gpu.options(true), 1500, 512, 64, kv, true, graphs);
  }

  private static void check(
      List<List<Integer>> expected, int from, List<Recorder> actual, String way) {
    for (int i = 0; i < expected.size(); i++) {
      List<Integer> all = expected.get(i);
      assertThat(actual.get(i).tokens)
          .as("p%d %s, seed %d", i, way, SEED)
          .isEqualTo(all.subList(from, all.size()));
    }
  }
}
