package dev.millrace.inference.backend.cpu;

import static org.assertj.core.api.Assertions.assertThat;

import dev.millrace.inference.api.FinishReason;
import dev.millrace.inference.api.GenerateEvent;
import dev.millrace.inference.api.SamplingParams;
import dev.millrace.inference.api.TokenLogprob;
import dev.millrace.inference.engine.Engine;
import dev.millrace.inference.engine.EngineConfig;
import dev.millrace.inference.engine.TokenListener;
import dev.millrace.inference.engine.TokenRequest;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import java.util.concurrent.CompletableFuture;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/**
 * A sequence's tokens and the bits of their log-probabilities are its own: equal whatever else
 * runs, however the prompt is cut, with or without a hit in the prefix cache, and continued from
 * any token.
 */
@Timeout(300)
class EngineOnCpuTest {
  private static final Path CHECKPOINTS = Path.of("src/test/resources/checkpoints");
  private static final int VOCAB = 80;
  private static final EngineConfig ALONE =
      EngineConfig.defaults().withMaxSequences(1).withPrefixCache(false);

  @ParameterizedTest
  @ValueSource(strings = {"llama-llama3-f32-tied", "llama-plain-bf16", "nemotron-nas-bf16"})
  void shouldComeToTheSameBytesInEveryCompany(String checkpoint) {
    try (CpuRunner runner = open(checkpoint)) {
      List<TokenRequest> requests = requests();
      List<List<String>> alone = new ArrayList<>();
      for (TokenRequest request : requests) {
        alone.addAll(run(runner, ALONE, List.of(request)));
      }
      // Tiny steps: prompts are cut anywhere and stand beside others' decodes.
      for (int budget : new int[] {3, 7, 64}) {
        EngineConfig crowded =
            EngineConfig.defaults()
                .withMaxSequences(Math.min(budget, 12))
                .withTokenBudget(budget)
                .withMaxChunk(1 + budget / 2);
        assertThat(run(runner, crowded, requests)).as("budget %d", budget).isEqualTo(alone);
      }
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"llama-llama3-f32-tied", "nemotron-nas-bf16"})
  void shouldComeToTheSameBytesFromTheCache(String checkpoint) {
    try (CpuRunner runner = open(checkpoint)) {
      TokenRequest request = requests().getLast();
      List<String> alone = run(runner, ALONE, List.of(request)).getFirst();
      try (Engine engine = new Engine(runner, EngineConfig.defaults())) {
        for (boolean hit : new boolean[] {false, true}) {
          Heard heard = new Heard();
          engine.submit(request, heard);
          assertThat(heard.end.join()).isEqualTo(alone);
          assertThat(heard.cached > 0).isEqualTo(hit);
        }
      }
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"llama-plain-bf16", "nemotron-nas-bf16"})
  void shouldComeToTheSameBytesFromEverySavedToken(String checkpoint) {
    try (CpuRunner runner = open(checkpoint)) {
      for (TokenRequest request : requests().subList(0, 4)) {
        Heard whole = new Heard();
        try (Engine engine = new Engine(runner, ALONE)) {
          engine.submit(request, whole);
          whole.end.join();
        }
        List<TokenRequest> resumed = new ArrayList<>();
        List<List<String>> rests = new ArrayList<>();
        for (int known = 0; known <= whole.tokens.size(); known++) {
          int[] resume = whole.tokens.stream().limit(known).mapToInt(i -> i).toArray();
          resumed.add(
              new TokenRequest(
                  "r",
                  request.prompt(),
                  resume,
                  request.sampling(),
                  request.stopTokens(),
                  request.priority()));
          rests.add(whole.heard.subList(known, whole.heard.size()));
        }
        assertThat(run(runner, EngineConfig.defaults(), resumed)).isEqualTo(rests);
      }
    }
  }

  private static CpuRunner open(String checkpoint) {
    return CpuRunner.open(CHECKPOINTS.resolve(checkpoint), new CpuRunner.Options(2, 96, false));
  }

  /** Greedy and drawn, with and without penalties, short and long, some with equal beginnings. */
  private static List<TokenRequest> requests() {
    Random random = new Random(11);
    int[] shared = random.ints(40, 0, VOCAB).toArray();
    List<TokenRequest> requests = new ArrayList<>();
    for (int i = 0; i < 12; i++) {
      int[] prompt = random.ints(1 + i * 6, 0, VOCAB).toArray();
      if (i % 2 == 1) {
        System.arraycopy(shared, 0, prompt, 0, Math.min(40, prompt.length));
      }
      SamplingParams sampling =
          new SamplingParams(
              i % 3 == 0 ? 0 : 0.9f,
              i % 3 == 1 ? 0.9f : 1,
              i % 4 == 1 ? 20 : 0,
              0,
              i % 2 == 0 ? 1.1f : 1,
              i % 4 == 2 ? 0.5f : 0,
              0,
              i * 77L,
              20,
              0,
              List.of(),
              i % 2 == 0,
              2);
      requests.add(new TokenRequest("r" + i, prompt, new int[0], sampling, new int[] {7, 11}, 0));
    }
    return requests;
  }

  private static List<List<String>> run(
      CpuRunner runner, EngineConfig config, List<TokenRequest> requests) {
    List<Heard> heard = new ArrayList<>();
    try (Engine engine = new Engine(runner, config)) {
      for (TokenRequest request : requests) {
        heard.add(new Heard());
        engine.submit(request, heard.getLast());
      }
      return heard.stream().map(h -> h.end.join()).toList();
    }
  }

  /** Tokens with the bits of their log-probabilities, and the end, as texts that compare. */
  private static final class Heard implements TokenListener {
    final List<String> heard = new ArrayList<>();
    final List<Integer> tokens = new ArrayList<>();
    final CompletableFuture<List<String>> end = new CompletableFuture<>();
    int cached;

    @Override
    public void onStarted(int cachedTokens) {
      cached = cachedTokens;
    }

    @Override
    public void onToken(int token, @Nullable TokenLogprob logprob) {
      tokens.add(token);
      heard.add(
          logprob == null
              ? "no logprob"
              : token
                  + " "
                  + Integer.toHexString(Float.floatToIntBits(logprob.logprob()))
                  + Arrays.toString(logprob.topTokens())
                  + Arrays.toString(logprob.topLogprobs()));
    }

    @Override
    public void onFinished(FinishReason reason) {
      heard.add(reason.name());
      end.complete(heard);
    }

    @Override
    public void onFailed(GenerateEvent.Failure failure, String message) {
      end.completeExceptionally(new AssertionError(failure + ": " + message));
    }
  }
}
