package dev.millrace.topology;

import static org.assertj.core.api.Assertions.assertThat;

import dev.millrace.schemas.PromptEvent;
import io.micrometer.core.instrument.simple.SimpleMeterRegistry;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.processor.StateStore;
import org.apache.kafka.streams.processor.api.MockProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.Stores;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

/** The order of turns and commits, where a test decides when Kafka Streams commits. */
class RetirementTest {
  private final WorkerConfig config =
      WorkerConfig.of(
          Map.of("kafka.bootstrap.servers", "nowhere:1", "registry.url", "mock://retirement"));
  private final ScriptedGenerator generator = new ScriptedGenerator();
  private final EventCodecs codecs = new EventCodecs(config);
  private final Gate gate = new Gate(config.window());
  private final CommitMarker marker = new CommitMarker();
  private final KeyValueStore<Bytes, byte[]> prompts = store(InFlightStore.PROMPTS);
  private final KeyValueStore<Bytes, byte[]> progress = store(InFlightStore.PROGRESS);
  private final KeyValueStore<Bytes, byte[]> seen = store(InFlightStore.SEEN);
  private final MockProcessorContext<byte[], byte[]> context =
      new MockProcessorContext<>(new Properties());
  private final PromptProcessor processor =
      new PromptProcessor(
          new Services(
              config,
              generator,
              new EventMapper("m", new EventMapper.SamplingDefaults(0, 1, 0, 10)),
              gate,
              new WorkerMetrics(new SimpleMeterRegistry()),
              new OutputLimits(config.maxPromptBytes()),
              codecs,
              why -> {}));

  @BeforeEach
  void init() {
    open(prompts);
    open(progress);
    open(seen);
    open(marker);
    context.setCurrentSystemTimeMs(1_000_000);
    processor.init(context);
  }

  private static KeyValueStore<Bytes, byte[]> store(String name) {
    return Stores.keyValueStoreBuilder(
            Stores.inMemoryKeyValueStore(name), Serdes.Bytes(), Serdes.ByteArray())
        .withLoggingDisabled()
        .build();
  }

  private void open(StateStore store) {
    store.init(context.getStateStoreContext(), store);
  }

  @AfterEach
  void close() {
    processor.close();
    codecs.close();
  }

  private void send(PromptEvent event, long offset) {
    context.setRecordMetadata(config.topics().prompts(), 0, offset);
    processor.process(
        new Record<>(
            null, codecs.prompts.serializer().serialize(config.topics().prompts(), event), 0));
  }

  private void tick() {
    context.scheduledPunctuators().getFirst().getPunctuator().punctuate(0);
  }

  private long stored() {
    return prompts.approximateNumEntries();
  }

  private long sentTo(Output.Sink sink) {
    return context.forwarded(sink.node()).size();
  }

  @Test
  void shouldNotDeleteAPromptBeforeACommitThatFollowsItsCompletion() {
    send(Harness.prompt("p").build(), 0);
    marker.committed();
    generator.last().done("4");
    tick();
    assertThat(sentTo(Output.Sink.COMPLETION)).isEqualTo(1);
    tick();
    tick();
    assertThat(stored()).as("no commit since").isEqualTo(1);
    assertThat(gate.kept()).isEqualTo(1);

    marker.committed();
    tick();
    assertThat(stored()).isZero();
    assertThat(gate.kept()).isZero();
    assertThat(sentTo(Output.Sink.COMPLETION)).isEqualTo(1);
  }

  @Test
  void shouldKeepTheOutcomeOnlyIfTheRecordWillNotBeReadAgain() {
    send(Harness.prompt("a").build(), 0);
    generator.last().done("4");
    tick();
    assertThat(progress.approximateNumEntries())
        .as("its offset is not committed: a crash reads the record again")
        .isZero();

    send(Harness.prompt("b").build(), 1);
    marker.committed();
    generator.last().done("4");
    tick();
    assertThat(progress.approximateNumEntries()).isEqualTo(1);
  }

  @Test
  void shouldHoldChunksBackUntilTheAttemptIsDurable() {
    send(Harness.prompt("p").setStream(true).build(), 0);
    assertThat(context.committed()).as("a commit is asked for").isTrue();
    generator.last().delta("The ", 1);
    tick();
    assertThat(sentTo(Output.Sink.CHUNK)).isZero();

    marker.committed();
    generator.last().delta("answer", 2);
    tick();
    assertThat(sentTo(Output.Sink.CHUNK)).isEqualTo(1);
  }

  @Test
  void shouldHoldAStreamedAnswerBackUntilItsAttemptIsDurable() {
    send(Harness.prompt("p").setStream(true).build(), 0);
    generator.last().done("4");
    tick();
    assertThat(sentTo(Output.Sink.COMPLETION)).isZero();
    marker.committed();
    tick();
    assertThat(sentTo(Output.Sink.CHUNK)).as("the last chunk").isEqualTo(1);
    assertThat(sentTo(Output.Sink.COMPLETION)).isEqualTo(1);
  }

  @Test
  void shouldTakeUpItsStoreAnewWhenATaskIsRevived() {
    send(Harness.prompt("p").build(), 0);
    processor.close();
    assertThat(gate.kept()).isZero();
    processor.init(context);
    context.scheduledPunctuators().getLast().getPunctuator().punctuate(0);
    assertThat(generator.submissions).hasSize(2);
    assertThat(gate.kept()).isEqualTo(1);
  }
}
