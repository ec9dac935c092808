package dev.millrace.topology;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatCode;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.apache.kafka.clients.consumer.Consumer;
import org.apache.kafka.clients.consumer.MockConsumer;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

class GateTest {
  private static final TopicPartition PROMPTS = new TopicPartition("prompts", 0);
  private static final TopicPartition MORE_PROMPTS = new TopicPartition("prompts", 1);
  private static final TopicPartition CANCELS = new TopicPartition("cancels", 0);

  private final Gate gate = new Gate(new WorkerConfig.Window(1, 100, 1_000));
  private final MockConsumer<byte[], byte[]> inner = new MockConsumer<>("earliest");
  private final Consumer<byte[], byte[]> consumer =
      GatedClientSupplier.gated(inner, gate, "prompts");

  @BeforeEach
  void assign() {
    inner.assign(List.of(PROMPTS, CANCELS));
    inner.updateBeginningOffsets(Map.of(PROMPTS, 0L, MORE_PROMPTS, 0L, CANCELS, 0L));
  }

  private void poll() {
    assertThat(consumer.poll(Duration.ZERO)).isEmpty();
  }

  @Test
  void shouldPauseOnlyThePromptsWhileTheWindowIsFull() {
    poll();
    assertThat(inner.paused()).isEmpty();
    gate.begin(10);
    poll();
    assertThat(inner.paused()).containsExactly(PROMPTS);
    gate.end();
    poll();
    assertThat(inner.paused()).isEmpty();
  }

  @Test
  void shouldHideItsPausesFromKafkaStreams() {
    gate.begin(10);
    poll();
    assertThat(consumer.paused()).isEmpty();
    consumer.pause(Set.of(CANCELS));
    assertThat(consumer.paused()).containsExactly(CANCELS);
  }

  @Test
  void shouldNotResumeWhatKafkaStreamsPaused() {
    consumer.pause(Set.of(PROMPTS));
    gate.begin(10);
    poll();
    gate.end();
    poll();
    assertThat(inner.paused()).containsExactly(PROMPTS);
    consumer.resume(Set.of(PROMPTS));
    assertThat(inner.paused()).isEmpty();
  }

  @Test
  void shouldNotLetKafkaStreamsResumeWhatTheGateHolds() {
    consumer.pause(Set.of(PROMPTS, CANCELS));
    gate.begin(10);
    poll();
    consumer.resume(Set.of(PROMPTS, CANCELS));
    assertThat(inner.paused()).containsExactly(PROMPTS);
  }

  @Test
  void shouldPauseAPartitionThatIsAssignedWhileTheGateIsClosed() {
    gate.begin(10);
    poll();
    inner.assign(List.of(PROMPTS, MORE_PROMPTS, CANCELS));
    poll();
    assertThat(inner.paused()).containsExactlyInAnyOrder(PROMPTS, MORE_PROMPTS);
  }

  @Test
  void shouldForgetAPartitionThatWasTakenAway() {
    gate.begin(10);
    poll();
    inner.assign(List.of(CANCELS));
    gate.end();
    // A consumer refuses to resume what it does not have.
    assertThatCode(this::poll).doesNotThrowAnyException();
  }

  @Test
  void shouldPassEverythingElseAndItsExceptions() {
    assertThat(consumer.assignment()).containsExactlyInAnyOrder(PROMPTS, CANCELS);
    inner.setPollException(new KafkaException("lost"));
    assertThatThrownBy(() -> consumer.poll(Duration.ZERO))
        .isExactlyInstanceOf(KafkaException.class)
        .hasMessage("lost");
  }

  @Test
  void shouldCloseForTokensDrainsAndStalls() {
    gate.waitingTokens(100);
    assertThat(gate.open()).isFalse();
    gate.waitingTokens(99);
    assertThat(gate.open()).isTrue();
    assertThat(gate.stall("task")).isTrue();
    assertThat(gate.stall("task")).as("no news").isFalse();
    assertThat(gate.open()).isFalse();
    gate.flows("task");
    assertThat(gate.open()).isTrue();
    gate.drain();
    assertThat(gate.open()).isFalse();
  }

  @Test
  void shouldCloseWhenThePromptsThatAreKeptAreLarge() {
    Gate wide = new Gate(new WorkerConfig.Window(100, 0, 1_000));
    wide.begin(999);
    assertThat(wide.open()).isTrue();
    wide.begin(1);
    assertThat(wide.open()).isFalse();
    wide.end();
    assertThat(wide.open()).as("sent, and still kept").isFalse();
    wide.forget(1);
    assertThat(wide.open()).isTrue();
  }
}
