package dev.millrace.topology;

import static org.assertj.core.api.Assertions.assertThat;

import dev.millrace.inference.api.Generator;
import dev.millrace.topology.StatusServer.Health;
import dev.millrace.topology.WorkerHealth.Situation;
import dev.millrace.topology.WorkerHealth.Streams;
import java.time.Duration;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Test;

/** What a worker says of itself, with an engine that is where the test puts it. */
class WorkerHealthTest {
  private static final Situation RUNNING = new Situation(Worker.State.RUNNING, null, false);

  private long now = Duration.ofHours(1).toNanos();
  private Generator.Status engine = engine(0, 0, Duration.ZERO, null);
  private Streams streams = new Streams(true, 3, 0.1);
  private final WorkerHealth health =
      new WorkerHealth(Duration.ofSeconds(120), () -> now, () -> engine, () -> streams);

  private Generator.Status engine(
      int waiting, int running, Duration sinceStep, @Nullable String failure) {
    return engine(waiting, running, sinceStep, null, failure);
  }

  private Generator.Status engine(
      int waiting,
      int running,
      Duration sinceStep,
      Generator.@Nullable Held held,
      @Nullable String failure) {
    long step = now - sinceStep.toNanos();
    return new Generator.Status(waiting, running, 0, 0, 0, step, held, 0, failure);
  }

  private Generator.Held held(int prompts, long seconds) {
    return new Generator.Held(prompts, now - Duration.ofSeconds(seconds).toNanos());
  }

  private static void assertBad(Health health, String why) {
    assertThat(health.good()).isFalse();
    assertThat(health.reason()).contains(why);
  }

  @Test
  void shouldBeLiveAndReadyWhileItWorks() {
    engine = engine(5, 3, Duration.ofSeconds(119), null);
    assertThat(health.live(RUNNING)).isEqualTo(new Health(true, "RUNNING"));
    assertThat(health.ready(RUNNING)).isEqualTo(new Health(true, "RUNNING, 3 partitions"));
  }

  @Test
  void shouldNotBeLiveWhenTheEngineTakesNoStepWithPromptsRunning() {
    engine = engine(0, 2, Duration.ofSeconds(121), null);
    assertBad(health.live(RUNNING), "the engine has not come on for 121 s, and has 2 prompts");
  }

  @Test
  void shouldNotBeLiveWhenPromptsOnlyWait() {
    engine = engine(4, 0, Duration.ofSeconds(121), null);
    assertBad(health.live(RUNNING), "and has 4 prompts");
  }

  @Test
  void shouldNotBeLiveWhenAllThatRunWaitForACommitThatDoesNotCome() {
    engine = engine(0, 2, Duration.ofSeconds(119), held(2, 119), null);
    assertThat(health.live(RUNNING).good()).as("a broker may be away for so long").isTrue();
    engine = engine(1, 2, Duration.ofSeconds(122), held(2, 121), null);
    assertBad(
        health.live(RUNNING), "2 prompts wait for a commit since 121 s, and the engine has 3");
  }

  @Test
  void shouldBeLiveWhileOthersGoOnBesideAPromptThatWaitsForACommit() {
    engine = engine(0, 2, Duration.ofSeconds(1), held(1, 500), null);
    assertThat(health.live(RUNNING).good()).isTrue();
  }

  @Test
  void shouldNotBeLiveWhenTheEngineHangsAlthoughAPromptHasLatelyBegunToWaitForACommit() {
    engine = engine(0, 2, Duration.ofSeconds(121), held(1, 3), null);
    assertBad(health.live(RUNNING), "the engine has not come on for 121 s, and has 2 prompts");
  }

  @Test
  void shouldBeLiveHoweverLongThereIsNothingToDo() {
    engine = engine(0, 0, Duration.ofDays(2), null);
    assertThat(health.live(RUNNING).good()).isTrue();
  }

  @Test
  void shouldNotBeLiveWhenAStreamThreadDoesNotPoll() {
    streams = new Streams(true, 3, 121);
    assertBad(health.live(RUNNING), "a stream thread has not polled for 121 s");
  }

  @Test
  void shouldBeLiveWhileItEndsAndPollsNoMore() {
    streams = new Streams(false, 0, 121);
    assertThat(health.live(new Situation(Worker.State.DRAINING, null, false)).good()).isTrue();
  }

  @Test
  void shouldNotBeLiveWhenTheEngineOrTheWorkerHasFailed() {
    engine = engine(0, 0, Duration.ZERO, "the device is lost");
    assertBad(health.live(RUNNING), "the device is lost");
    engine = engine(0, 0, Duration.ZERO, null);
    assertBad(health.live(new Situation(Worker.State.RUNNING, "no access", false)), "no access");
    assertBad(health.live(new Situation(Worker.State.FAILED, null, false)), "FAILED");
  }

  @Test
  void shouldBeReadyOnlyBetweenTheFirstAssignmentAndTheEnd() {
    assertBad(health.ready(new Situation(Worker.State.STARTING, null, false)), "not given it");
    assertBad(health.ready(new Situation(Worker.State.DRAINING, null, false)), "DRAINING");
    streams = new Streams(false, 3, 0);
    assertBad(health.ready(RUNNING), "RUNNING");
  }

  @Test
  void shouldBeReadyWithoutPartitionsAndSayWhy() {
    streams = new Streams(true, 0, 0);
    assertThat(health.ready(RUNNING).good()).isTrue();
    assertThat(health.ready(RUNNING).reason()).contains("no partitions", "stands by");
  }

  @Test
  void shouldSayThatItWaitsForTheRegistry() {
    assertThat(health.ready(new Situation(Worker.State.RUNNING, null, true)).reason())
        .contains("waits for the registry");
  }
}
