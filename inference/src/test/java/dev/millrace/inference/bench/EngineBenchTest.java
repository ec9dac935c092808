package dev.millrace.inference.bench;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.millrace.inference.device.DeviceOptions;
import dev.millrace.inference.device.Devices;
import dev.millrace.inference.engine.EngineConfig;
import dev.millrace.inference.model.ModelRunner;
import java.nio.file.Path;
import org.junit.jupiter.api.Test;

/** On the shape of a small nemotron-nas model, with made-up weights. */
class EngineBenchTest {
  private static final Path CONFIG =
      Path.of("src/test/resources/checkpoints/nemotron-nas-bf16/config.json");
  private static final Ceilings CEILINGS = new Ceilings(1e9, 1e9);
  private static final EngineConfig ENGINE = EngineConfig.defaults().withMaxSequences(4);

  private static ModelRunner runner() {
    return Devices.openRandom(
        CONFIG, 7, DeviceOptions.of("cpu").withThreads(1).withKvBlocks(64).withWarmUp(false));
  }

  private static EngineReport run(Load load) throws InterruptedException {
    try (ModelRunner runner = runner()) {
      return new EngineBench(runner, ENGINE, load, CEILINGS).run();
    }
  }

  @Test
  void shouldServeEachRequestToItsFullLength() throws Exception {
    EngineReport report = run(new Load(6, 0, 20, 5, 0, 1));
    assertThat(report.outputTokens()).isEqualTo(30);
    assertThat(report.inputTokens()).isEqualTo(120);
    assertThat(report.firstToken().count()).isEqualTo(6);
    assertThat(report.betweenTokens().count()).isEqualTo(24);
    assertThat(report.outputPerSecond()).isEqualTo(30 / report.seconds());
  }

  @Test
  void shouldCountTheTokensOfItsSteps() throws Exception {
    // The last token of an answer is drawn but never computed; the runner is two steps deep, so
    // that a step may be planned for a sequence that turns out to have ended.
    EngineReport report = run(new Load(1, 0, 20, 5, 0, 1));
    EngineReport.Steps steps = report.steps();
    assertThat(steps.count()).isEqualTo(5);
    assertThat(steps.meanTokens() * steps.count()).isBetween(23.9, 24.1);
    assertThat(steps.meanSequences()).isEqualTo(1);
    assertThat(steps.occupancy()).isBetween(0.0, 1.0);
    assertThat(steps.empty()).isBetween(0.0, 1.0);
    assertThat(report.bound().seconds()).isPositive();
  }

  @Test
  void shouldRunNoMoreThanAskedForAtATime() throws Exception {
    EngineReport report = run(new Load(4, 1, 8, 4, 0, 1));
    assertThat(report.steps().meanSequences()).isEqualTo(1);
    assertThat(report.steps().count()).isEqualTo(16);
  }

  @Test
  void shouldMakeEqualRequestsOfEqualSeeds() {
    Load load = new Load(2, 0, 40, 2, 0, 1);
    assertThat(load.prompt(0, 80)).isEqualTo(load.prompt(0, 80)).isNotEqualTo(load.prompt(1, 80));
    assertThat(load.prompt(0, 80)).isNotEqualTo(new Load(2, 0, 40, 2, 0, 2).prompt(0, 80));
  }

  @Test
  void shouldLeaveOutWhatOnlyWaits() throws Exception {
    EngineReport report = run(new Load(4, 0, 8, 4, 50, 1));
    assertThat(report.outputTokens()).isEqualTo(16);
    assertThat(report.firstToken().count()).isEqualTo(4);
  }

  @Test
  void shouldRefuseWhatTheModelDoesNotTake() {
    try (ModelRunner runner = runner()) {
      assertThatThrownBy(
              () -> new EngineBench(runner, ENGINE, new Load(1, 0, 500, 13, 0, 1), CEILINGS))
          .hasMessage("isl and osl are 513 tokens together; model and KV memory take 512");
    }
  }

  @Test
  void shouldMakeTheSameWeightsOfTheSameSeed() throws Exception {
    try (ModelRunner one = runner();
        ModelRunner two = runner()) {
      assertThat(one.footprint()).isEqualTo(two.footprint());
      assertThat(one.footprint().bodyWeights() * 2).isEqualTo(one.footprint().bodyBytes());
    }
  }
}
