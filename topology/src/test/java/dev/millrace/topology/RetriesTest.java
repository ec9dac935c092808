package dev.millrace.topology;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;

import dev.millrace.inference.api.GenerateEvent.Failure;
import dev.millrace.topology.DeadLetters.Reason;
import java.time.Duration;
import java.util.List;
import org.apache.kafka.streams.test.TestRecord;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;

/** What the engine failed is tried again, beside fresh prompts. */
class RetriesTest {
  private Harness harness = new Harness();

  @AfterEach
  void close() {
    harness.close();
  }

  private void restart(String... settings) {
    harness.close();
    harness = new Harness(settings);
  }

  private TestRecord<byte[], byte[]> onlyDeadLetter(Reason reason) {
    List<TestRecord<byte[], byte[]>> letters = harness.deadLetters();
    assertThat(letters).hasSize(1);
    assertThat(header(letters.getFirst(), DeadLetters.REASON)).isEqualTo(reason.name());
    assertThat(harness.completions()).isEmpty();
    return letters.getFirst();
  }

  private static String header(TestRecord<byte[], byte[]> record, String name) {
    return new String(record.headers().lastHeader(name).value(), UTF_8);
  }

  @Test
  void shouldTryAgainWhatTheEngineFailedAndThenSetItAside() {
    restart("engine.attempts", "3", "engine.backoff", "1s");
    harness.send(Harness.prompt("p1").build());
    harness.generator.last().delta("a", 1, 2);
    harness.generator.last().failed(Failure.ENGINE, "first");
    harness.tick();
    harness.advance(Duration.ofMillis(900));
    assertThat(harness.generator.submissions).hasSize(1);
    harness.advance(Duration.ofMillis(100));
    assertThat(harness.generator.submissions).hasSize(2);
    assertThat(harness.generator.last().request.resume()).containsExactly(1, 2);
    harness.generator.last().failed(Failure.ENGINE, "second");
    harness.tick();
    harness.advance(Duration.ofMillis(1900));
    assertThat(harness.generator.submissions).as("the pause doubles").hasSize(2);
    harness.advance(Duration.ofMillis(200));
    harness.generator.last().failed(Failure.ENGINE, "third");
    harness.tick();
    TestRecord<byte[], byte[]> letter = onlyDeadLetter(Reason.ENGINE_FAILED);
    assertThat(letter.value()).isEqualTo(harness.bytes(Harness.prompt("p1").build()));
    assertThat(header(letter, DeadLetters.MESSAGE)).contains("3 times", "third");
    harness.assertNothingKept();
  }

  @Test
  void shouldCountTheEnginesFailuresAcrossARestart() {
    restart("engine.attempts", "2");
    harness.send(Harness.prompt("p1").build());
    harness.generator.last().failed(Failure.ENGINE, "first");
    harness.tick();
    harness.advance(Duration.ofSeconds(1));
    try (Harness next = harness.successor("engine.attempts", "2")) {
      next.tick();
      next.generator.last().failed(Failure.ENGINE, "second");
      next.tick();
      assertThat(next.deadLetters()).hasSize(1);
    }
  }

  @Test
  void shouldNotCountAClosedGeneratorAgainstThePrompt() {
    restart("engine.attempts", "1");
    harness.send(Harness.prompt("p1").build());
    harness.generator.last().failed(Failure.CLOSED, "closing");
    harness.tick();
    harness.advance(Duration.ofSeconds(1));
    assertThat(harness.generator.submissions).hasSize(2);
    assertThat(harness.deadLetters()).isEmpty();
  }

  @Test
  void shouldForwardNothingWhenTheEngineIsDead() {
    restart("engine.attempts", "1");
    harness.send(Harness.prompt("p1").build());
    harness.generator.failure = "the device is lost";
    harness.generator.last().failed(Failure.ENGINE, "the device is lost");
    harness.tick();
    harness.advance(Duration.ofSeconds(1));
    assertThat(harness.deadLetters()).isEmpty();
    assertThat(harness.engineFailures).contains("the device is lost");
    assertThat(harness.stored(InFlightStore.PROMPTS)).isEqualTo(1);
  }

  @Test
  void shouldTryAgainWhenTheEngineThrows() {
    harness.generator.thrown = new IllegalStateException("told to throw");
    harness.send(Harness.prompt("p1").build());
    harness.generator.thrown = null;
    harness.advance(Duration.ofSeconds(1));
    assertThat(harness.generator.submissions).hasSize(1);
  }

  @Test
  void shouldCloseTheGateWhenTheWindowIsFull() {
    restart("window.prompts", "2");
    harness.send(Harness.prompt("a").build());
    assertThat(harness.gate.open()).isTrue();
    harness.send(Harness.prompt("b").build());
    assertThat(harness.gate.open()).isFalse();
    harness.generator.submissions.getFirst().done("4");
    harness.tick();
    assertThat(harness.gate.open()).as("an answer makes room before it is retired").isTrue();
  }

  @Test
  void shouldLetFreshPromptsInWhileOthersWaitForAnotherTry() {
    restart("window.prompts", "2", "engine.backoff", "30s");
    harness.send(Harness.prompt("a").build());
    harness.send(Harness.prompt("b").build());
    assertThat(harness.gate.open()).isFalse();
    harness.generator.submissions.forEach(s -> s.failed(Failure.ENGINE, "no"));
    harness.tick();
    assertThat(harness.gate.open()).as("but only as many as the window again").isFalse();
    assertThat(harness.gate.running()).isEqualTo(2);
    harness.cancel("a");
    assertThat(harness.gate.open()).isTrue();
    harness.send(Harness.prompt("c").build());
    assertThat(harness.generator.last().request.id()).isEqualTo("c");
    assertThat(harness.gate.open()).isTrue();
    harness.send(Harness.prompt("d").build());
    assertThat(harness.gate.open()).isFalse();
    harness.advance(Duration.ofSeconds(31));
    assertThat(harness.generator.last().request.id()).as("tried again").isEqualTo("b");
    harness.generator.submissions.forEach(s -> s.done("4"));
    harness.tick();
    harness.assertNothingKept();
    assertThat(harness.gate.open()).isTrue();
  }

  @Test
  void shouldSaveNoMoreBytesASecondThanAllowed() {
    restart("progress.save.bytes.per.second", "1024", "progress.save.interval", "1h");
    for (int i = 0; i < 60; i++) {
      harness.send(Harness.prompt("p" + i).build());
    }
    harness.generator.submissions.forEach(s -> s.delta("x", new int[16]));
    harness.tick();
    int first = harness.stored(InFlightStore.PROGRESS);
    assertThat(first).isBetween(8, 20);
    assertThat(harness.count("millrace.progress.saves.put.off")).isEqualTo(60 - first);
    assertThat(harness.count("millrace.progress.saved.bytes")).isBetween(300.0, 1_500.0);
    harness.advance(Duration.ofSeconds(1));
    harness.generator.submissions.forEach(s -> s.delta("x", 1));
    harness.tick();
    assertThat(harness.stored(InFlightStore.PROGRESS)).isBetween(first + 8, first + 20);
    assertThat(harness.registry.get("millrace.tokens.at.risk.most").gauge().value()).isEqualTo(17);
  }

  @Test
  void shouldShowWhatACrashWouldCostNow() {
    harness.send(Harness.prompt("p1").build());
    harness.generator.last().delta("x", new int[20]);
    harness.advance(Duration.ofMillis(60));
    assertThat(harness.registry.get("millrace.tokens.at.risk").gauge().value())
        .as("saved, and not known to be durable")
        .isEqualTo(20);
    harness.advance(Duration.ofMillis(60));
    assertThat(harness.registry.get("millrace.tokens.at.risk").gauge().value()).isZero();
    harness.generator.last().delta("x", new int[3]);
    harness.tick();
    harness.closeDriver();
    assertThat(harness.count("millrace.tokens.regenerated")).isEqualTo(3);
    assertThat(harness.registry.get("millrace.tokens.at.risk").gauge().value()).isZero();
  }
}
