package dev.millrace.inference.engine;

import static org.assertj.core.api.Assertions.assertThat;

import dev.millrace.inference.api.SamplingParams;
import dev.millrace.inference.api.Scheduling;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;

/** An engine on a {@link HashRunner}, driven by the test or by its own thread. */
abstract class EngineFixture {
  static final int VOCAB = 500;

  EngineConfig config = EngineConfig.defaults().withMaxSequences(8).withTokenBudget(32);
  Runner.Info info = new Runner.Info(VOCAB, 200, 4, 64, 2);
  HashRunner runner = new HashRunner(info, config, new Random(1));

  final void use(Runner.Info newInfo, EngineConfig newConfig) {
    info = newInfo;
    config = newConfig;
    runner = new HashRunner(info, config, new Random(1));
  }

  /** An engine that runs in the test's own thread. */
  final Engine driven(EngineConfig with) {
    config = with;
    HashRunner made = new HashRunner(info, with, new Random(1));
    made.failing = runner.failing;
    runner = made;
    return new Engine(runner, with, false);
  }

  static void rounds(Engine engine, int count) {
    for (int i = 0; i < count; i++) {
      engine.round();
    }
  }

  final String run(TokenRequest request) {
    return runInto(request, new Recorder());
  }

  final String runInto(TokenRequest request, Recorder recorder) {
    Engine engine = driven(config);
    engine.submit(request, recorder);
    rounds(engine, 300);
    assertThat(recorder.broken).isNull();
    return recorder.end.getNow("goes on");
  }

  final void assertRefused(TokenRequest request, String outcome, String message) {
    Recorder recorder = new Recorder();
    assertThat(runInto(request, recorder)).isEqualTo(outcome);
    assertThat(recorder.message).isEqualTo(message);
    assertThat(recorder.cached).as("onStarted was not called").isEqualTo(-1);
  }

  static Recorder named(String name, List<String> order) {
    return new Recorder() {
      @Override
      public void onStarted(int cachedTokens) {
        order.add(name);
      }
    };
  }

  static TokenRequest request(SamplingParams sampling, int... prompt) {
    return new TokenRequest(
        "r", prompt, new int[0], sampling, new int[] {HashRunner.STOP}, Scheduling.ANY);
  }

  static SamplingParams greedy(int maxTokens, boolean ignoreEos) {
    return new SamplingParams(0, 1, 0, 0, 1, 0, 0, 0, maxTokens, 0, List.of(), ignoreEos, -1);
  }

  static int[] prompt(int length, int seed) {
    return new Random(seed).ints(length, 2, VOCAB).toArray();
  }

  static List<Integer> model(int count, int... prompt) {
    int hash = HashRunner.start(VOCAB);
    for (int token : prompt) {
      hash = HashRunner.mix(hash, token);
    }
    List<Integer> tokens = new ArrayList<>();
    for (int i = 0; i < count; i++) {
      int token = HashRunner.token(hash, 0, VOCAB, false, false);
      tokens.add(token);
      hash = HashRunner.mix(hash, token);
    }
    return tokens;
  }

  /** An engine to make sequences of. */
  static Engine idle() {
    Runner.Info small = new Runner.Info(VOCAB, 200, 4, 64, 2);
    EngineConfig few = EngineConfig.defaults().withMaxSequences(8).withTokenBudget(32);
    return new Engine(new HashRunner(small, few, new Random(1)), few, false);
  }
}
