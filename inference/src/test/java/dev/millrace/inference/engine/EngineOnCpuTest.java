package dev.millrace.inference.engine;

import static org.assertj.core.api.Assertions.assertThat;

import dev.millrace.inference.api.SamplingParams;
import dev.millrace.inference.api.Scheduling;
import dev.millrace.inference.backend.cpu.CpuRunner;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** The engine on a real network: an answer is the same whatever happens around it. */
class EngineOnCpuTest {
  private static final long SEED = 314;
  private static final int VOCAB = 80;
  private static final int MAX_TOKENS = 24;

  private static Path checkpoint(String name) {
    return Path.of("src/test/resources/checkpoints", name);
  }

  /** Prompts of many lengths, two of them with the same beginning; greedy, sampled, penalised. */
  private static List<TokenRequest> requests() {
    Random random = new Random(SEED);
    List<TokenRequest> requests = new ArrayList<>();
    int[] lengths = {1, 5, 16, 17, 40, 100, 33, 2};
    for (int i = 0; i < lengths.length; i++) {
      requests.add(request("p" + i, random.ints(lengths[i], 0, VOCAB).toArray(), new int[0], i));
    }
    int[] shared = Arrays.copyOf(requests.get(5).prompt(), 120);
    requests.add(request("p8", shared, new int[0], 8));
    return requests;
  }

  private static TokenRequest request(String id, int[] prompt, int[] resume, int i) {
    SamplingParams params =
        switch (i % 3) {
          case 0 -> SamplingParams.greedy(MAX_TOKENS);
          case 1 ->
              new SamplingParams(
                  0.8f, 0.9f, 30, 0, 1, 0, 0, 1000 + i, MAX_TOKENS, 0, List.of(), true, -1);
          default ->
              new SamplingParams(
                  1.3f, 1, 0, 0.02f, 1.2f, 0.5f, 0.3f, i, MAX_TOKENS, 0, List.of(), true, 3);
        };
    return new TokenRequest(id, prompt, resume, params, new int[] {1, 2}, Scheduling.ANY);
  }

  /** Runs requests side by side. */
  private static List<Recorder> run(
      String name, int threads, EngineConfig config, List<TokenRequest> requests) throws Exception {
    try (CpuRunner runner =
            CpuRunner.open(checkpoint(name), new CpuRunner.Options(threads, 60, false));
        Engine engine = new Engine(runner, config)) {
      return run(engine, requests);
    }
  }

  private static List<Recorder> run(Engine engine, List<TokenRequest> requests) throws Exception {
    List<Recorder> recorders = new ArrayList<>();
    for (TokenRequest request : requests) {
      Recorder recorder = new Recorder();
      recorders.add(recorder);
      engine.submit(request, recorder);
    }
    for (Recorder recorder : recorders) {
      assertThat(recorder.end.get(60, TimeUnit.SECONDS))
          .as("%s", recorder.message)
          .isIn("STOP", "LENGTH");
      assertThat(recorder.broken).isNull();
    }
    return recorders;
  }

  /** Each request alone in an engine that keeps nothing from the one before. */
  private static List<List<Integer>> alone(String name, List<TokenRequest> requests)
      throws Exception {
    EngineConfig config = EngineConfig.defaults().withPrefixCache(false);
    List<List<Integer>> answers = new ArrayList<>();
    try (CpuRunner runner = CpuRunner.open(checkpoint(name), new CpuRunner.Options(1, 60, false));
        Engine engine = new Engine(runner, config)) {
      for (TokenRequest request : requests) {
        answers.add(run(engine, List.of(request)).get(0).tokens);
      }
    }
    return answers;
  }

  @ParameterizedTest
  @ValueSource(strings = {"llama-plain-bf16", "nemotron-nas-bf16", "llama-yarn-f16-sharded"})
  void shouldAnswerTheSameInAnyBatchAndChunking(String name) throws Exception {
    List<TokenRequest> requests = requests();
    List<List<Integer>> expected = alone(name, requests);
    assertThat(expected.stream().mapToInt(List::size).sum()).isGreaterThan(100);
    EngineConfig config = EngineConfig.defaults();
    for (EngineConfig way :
        List.of(
            config,
            config.withMaxSequences(4).withTokenBudget(5).withMaxChunk(3),
            config.withMaxSequences(3).withTokenBudget(64).withMaxChunk(17).withPrefixCache(false),
            config.withMaxSequences(2).withTokenBudget(33))) {
      for (int threads : new int[] {1, 2}) {
        List<Recorder> actual = run(name, threads, way, requests);
        for (int i = 0; i < requests.size(); i++) {
          assertThat(actual.get(i).tokens)
              .as("%s of %s, %d threads, seed %d", requests.get(i).id(), way, threads, SEED)
              .isEqualTo(expected.get(i));
        }
      }
    }
  }

  @Test
  void shouldAnswerTheSameWhereMemoryRanShort() throws Exception {
    List<TokenRequest> requests = requests();
    List<List<Integer>> expected = alone("nemotron-nas-bf16", requests);
    for (boolean cache : new boolean[] {true, false}) {
      try (CpuRunner runner =
              CpuRunner.open(checkpoint("nemotron-nas-bf16"), new CpuRunner.Options(2, 17, false));
          Engine engine =
              new Engine(runner, EngineConfig.defaults().withPrefixCache(cache), false)) {
        AnswerLengths lengths = engine.scheduler().admission().lengths();
        for (int i = 0; i < 1000; i++) {
          lengths.ended(1, true);
        }
        lengths.learn();
        List<Recorder> recorders = new ArrayList<>();
        for (TokenRequest request : requests) {
          recorders.add(new Recorder());
          engine.submit(request, recorders.getLast());
        }
        while (engine.round()) {}
        assertThat(engine.counters().preemptions()).as("gave way").isPositive();
        for (int i = 0; i < requests.size(); i++) {
          assertThat(recorders.get(i).tokens)
              .as("%s, cache %s", requests.get(i).id(), cache)
              .isEqualTo(expected.get(i));
        }
      }
    }
  }

  @Test
  void shouldAnswerTheSameAfterAPrefixHit() throws Exception {
    List<TokenRequest> requests = requests();
    List<List<Integer>> expected = alone("nemotron-nas-bf16", requests);
    try (CpuRunner runner =
            CpuRunner.open(checkpoint("nemotron-nas-bf16"), new CpuRunner.Options(2, 60, false));
        Engine engine = new Engine(runner, EngineConfig.defaults())) {
      run(engine, requests);
      List<Recorder> second = run(engine, requests);
      assertThat(second.get(5).cached).isGreaterThanOrEqualTo(80);
      for (int i = 0; i < requests.size(); i++) {
        assertThat(second.get(i).tokens)
            .as("%s, %d cached", requests.get(i).id(), second.get(i).cached)
            .isEqualTo(expected.get(i));
      }
    }
  }

  @Test
  void shouldContinueTheSameFromAnySavedToken() throws Exception {
    List<TokenRequest> requests = requests();
    List<List<Integer>> expected = alone("nemotron-nas-bf16", requests);
    List<TokenRequest> resumed = new ArrayList<>();
    List<List<Integer>> rest = new ArrayList<>();
    for (int i = 0; i < requests.size(); i++) {
      List<Integer> all = expected.get(i);
      for (int saved = 1; saved <= all.size(); saved++) {
        resumed.add(
            request(
                "p" + i + " from " + saved,
                requests.get(i).prompt(),
                all.subList(0, saved).stream().mapToInt(Integer::intValue).toArray(),
                i));
        rest.add(all.subList(saved, all.size()));
      }
    }
    assertThat(resumed).hasSizeGreaterThan(100);
    List<Recorder> actual =
        run("nemotron-nas-bf16", 2, EngineConfig.defaults().withMaxChunk(50), resumed);
    for (int i = 0; i < resumed.size(); i++) {
      assertThat(actual.get(i).tokens).as(resumed.get(i).id()).isEqualTo(rest.get(i));
    }
  }
}
