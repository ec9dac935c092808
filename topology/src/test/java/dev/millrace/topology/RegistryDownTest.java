package dev.millrace.topology;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;

import dev.millrace.schemas.PromptEvent;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import org.apache.kafka.common.header.internals.RecordHeaders;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;

/** A registry that gives no answer stalls, and nothing is set aside for it. */
class RegistryDownTest {
  private Harness harness = new Harness();

  @AfterEach
  void close() {
    SwitchableSerde.readsFail = false;
    SwitchableSerde.writesFail = false;
    SwitchableSerde.neededHeader = null;
    harness.close();
  }

  private void restart(String... settings) {
    harness.close();
    harness = new Harness(settings);
  }

  @Test
  void shouldKeepPromptsThatCannotBeReadWhileTheRegistryIsDown() {
    restart("serde.class", SwitchableSerde.class.getName());
    PromptEvent event = Harness.prompt("p1").build();
    byte[] bytes = harness.bytes(event);
    SwitchableSerde.readsFail = true;
    harness.send("p1".getBytes(UTF_8), bytes, Map.of());
    assertThat(harness.gate.open()).isFalse();
    assertThat(harness.stored(InFlightStore.PROMPTS)).isEqualTo(1);
    harness.advance(Duration.ofSeconds(5));
    assertThat(harness.deadLetters()).isEmpty();

    SwitchableSerde.readsFail = false;
    harness.advance(Duration.ofSeconds(1));
    assertThat(harness.gate.open()).isTrue();
    harness.generator.last().done("4");
    harness.tick();
    assertThat(harness.completions()).hasSize(1);
    harness.assertNothingKept();
  }

  @Test
  void shouldAskARegistryThatIsDownOnceInAWhile() {
    restart("serde.class", SwitchableSerde.class.getName());
    byte[] unread = harness.bytes(Harness.prompt("unread").build());
    for (String id : List.of("a", "b", "c")) {
      harness.send(Harness.prompt(id).setStream(true).build());
    }
    SwitchableSerde.UNANSWERED.set(0);
    SwitchableSerde.readsFail = true;
    SwitchableSerde.writesFail = true;
    harness.generator.submissions.forEach(s -> s.done("4"));
    harness.tick();
    for (int i = 0; i < 5; i++) {
      harness.send(null, unread, Map.of());
    }
    assertThat(SwitchableSerde.UNANSWERED).hasValue(1);
    harness.advance(Duration.ofSeconds(1));
    assertThat(SwitchableSerde.UNANSWERED).hasValue(2);

    SwitchableSerde.readsFail = false;
    SwitchableSerde.writesFail = false;
    harness.advance(Duration.ofSeconds(1));
    assertThat(harness.completions()).hasSize(3);
    assertThat(harness.generator.submissions).hasSize(4);
    assertThat(harness.count("millrace.prompts.duplicate")).isEqualTo(4);
    harness.generator.last().done("4");
    harness.assertNothingKept();
  }

  @Test
  void shouldKeepAnswersThatCannotBeWrittenWhileTheRegistryIsDown() {
    restart("serde.class", SwitchableSerde.class.getName());
    harness.send(Harness.prompt("p1").build());
    SwitchableSerde.writesFail = true;
    harness.generator.last().done("4");
    harness.tick();
    assertThat(harness.gate.open()).isFalse();
    assertThat(harness.deadLetters()).isEmpty();
    SwitchableSerde.writesFail = false;
    harness.advance(Duration.ofSeconds(1));
    assertThat(harness.completions()).hasSize(1);
    assertThat(harness.gate.open()).isTrue();
    harness.assertNothingKept();
  }

  @Test
  void shouldKeepCancelsThatCannotBeReadAcrossAMove() {
    restart("serde.class", SwitchableSerde.class.getName());
    harness.send(Harness.prompt("running").build());
    SwitchableSerde.readsFail = true;
    harness.cancel("running");
    harness.cancel("later");
    assertThat(harness.generator.last().cancelled).isFalse();
    assertThat(harness.stored(InFlightStore.SEEN)).isEqualTo(2);
    try (Harness next = harness.successor("serde.class", SwitchableSerde.class.getName())) {
      next.tick();
      SwitchableSerde.readsFail = false;
      next.advance(Duration.ofSeconds(1));
      next.advance(Duration.ofSeconds(1));
      assertThat(next.completions())
          .extracting(r -> r.value().getPromptId() + " " + r.value().getFinishReason())
          .containsExactly("running CANCELLED");
      next.send(Harness.prompt("later").build());
      next.tick();
      assertThat(next.completions()).hasSize(1);
      assertThat(next.generator.submissions).isEmpty();
    }
  }

  @Test
  void shouldCancelARunningPromptOnceTheRegistryAnswers() {
    restart("serde.class", SwitchableSerde.class.getName());
    harness.send(Harness.prompt("p1").build());
    SwitchableSerde.readsFail = true;
    harness.cancel("p1");
    harness.advance(Duration.ofSeconds(3));
    assertThat(harness.generator.last().cancelled).isFalse();
    SwitchableSerde.readsFail = false;
    harness.advance(Duration.ofSeconds(1));
    assertThat(harness.generator.last().cancelled).isTrue();
    assertThat(harness.gate.open()).isTrue();
  }

  @Test
  void shouldKeepTheHeadersOfACancelThatCannotBeRead() {
    restart("serde.class", SwitchableSerde.class.getName());
    harness.send(Harness.prompt("p1").build());
    SwitchableSerde.neededHeader = "schema";
    SwitchableSerde.readsFail = true;
    harness.cancel("p1", new RecordHeaders().add("schema", new byte[] {7}));
    harness.advance(Duration.ofSeconds(3));
    SwitchableSerde.readsFail = false;
    harness.advance(Duration.ofSeconds(1));
    assertThat(harness.generator.last().cancelled).isTrue();
  }

  @Test
  void shouldExpireAnAnswerThatTheRegistryHeldUp() {
    restart("serde.class", SwitchableSerde.class.getName());
    harness.send(
        Harness.prompt("p1").setDeadline(Harness.START.plus(Duration.ofSeconds(4))).build());
    SwitchableSerde.writesFail = true;
    harness.generator.last().done("4");
    harness.tick();
    harness.advance(Duration.ofSeconds(5));
    SwitchableSerde.writesFail = false;
    harness.advance(Duration.ofSeconds(1));
    assertThat(harness.completions())
        .extracting(r -> r.value().getFinishReason() + ":" + r.value().getContent())
        .containsExactly("EXPIRED:4");
  }
}
