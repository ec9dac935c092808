package dev.millrace.topology;

import static org.assertj.core.api.Assertions.assertThat;

import dev.millrace.inference.api.GenerateEvent;
import dev.millrace.schemas.CancelEvent;
import dev.millrace.schemas.PromptEvent;
import io.micrometer.core.instrument.simple.SimpleMeterRegistry;
import io.opentelemetry.api.OpenTelemetry;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.processor.Punctuator;
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
  private final OutputLimits limits = new OutputLimits(config.maxPromptBytes());
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
              new WorkerMetrics(new SimpleMeterRegistry(), "m"),
              limits,
              codecs,
              ReplyOutbox.NONE,
              new CloudEvents(""),
              new Tracing(OpenTelemetry.noop(), "test"),
              new Quarantine(),
              new SaveBudget(config.save().bytesPerSecond()),
              why -> {}));

  @BeforeEach
  void init() {
    open(prompts);
    open(progress);
    open(seen);
    open(marker);
    context.setCurrentSystemTimeMs(1_000_000);
    processor.init(context);
    tick();
    marker.committed();
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
    context.scheduledPunctuators().getLast().getPunctuator().punctuate(0);
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
  void shouldRetireAtTheCommitSoThatNothingIsSentAgainWhereTheTaskMoves() {
    send(Harness.prompt("p").build(), 0);
    marker.committed();
    generator.last().done("4");
    tick();
    assertThat(stored()).isEqualTo(1);
    // Kafka Streams commits, and takes the task away without another turn.
    marker.committed();
    assertThat(stored()).isZero();
    assertThat(savedProgress()).isEmpty();
    assertThat(seen.approximateNumEntries()).isEqualTo(1);
  }

  @Test
  void shouldRetireNothingAtACommitThatComesAfterTheTaskIsClosed() {
    send(Harness.prompt("p").build(), 0);
    marker.committed();
    generator.last().done("4");
    tick();
    processor.close();
    // As where a flush failed while it was closed.
    marker.committed();
    assertThat(stored()).isEqualTo(1);
  }

  @Test
  void shouldWriteNothingWhereTheTaskIsTakenAwayRightAfterACommit() {
    send(Harness.prompt("p").build(), 0);
    generator.last().delta("so far", 1, 2, 3);
    tick();
    marker.flushCache();
    marker.committed();
    // Kafka Streams would not commit this: no turn was taken since the last time.
    gate.handOver(List.of(0));
    assertThat(savedProgress()).isEmpty();
    assertThat(handedOver()).isFalse();

    tick();
    gate.handOver(List.of(0));
    assertThat(savedProgress()).hasSize(1);
    assertThat(handedOver()).isTrue();
  }

  private boolean handedOver() {
    InFlightStore.Owner owner = new InFlightStore(context).owner();
    return owner != null && owner.handedOver();
  }

  @Test
  void shouldRememberACancelUntilItsPromptsEndIsDurable() {
    context.setRecordMetadata(config.topics().cancels(), 0, 0);
    processor.process(
        new Record<>(
            null,
            codecs
                .cancels
                .serializer()
                .serialize(
                    config.topics().cancels(), CancelEvent.newBuilder().setPromptId("p").build()),
            0));
    marker.committed();
    send(Harness.prompt("p").build(), 0);
    assertThat(sentTo(Output.Sink.COMPLETION)).isEqualTo(1);
    assertThat(seen.approximateNumEntries())
        .as("a crash now would read the prompt again, and not the cancel")
        .isEqualTo(1);
    marker.committed();
    tick();
    assertThat(stored()).isZero();
    assertThat(seenCancels()).isZero();
  }

  @Test
  void shouldEndAPromptOnceThatWasKeptByAWorkerThatNeverCommittedItsOffset() {
    PromptEvent event = Harness.prompt("p").build();
    send(event, 5);
    takeOver();
    int submitted = generator.submissions.size();
    generator.last().failed(GenerateEvent.Failure.INVALID_REQUEST, "no");
    tick();
    assertThat(sentTo(Output.Sink.DEAD_LETTER)).isEqualTo(1);
    marker.committed();
    assertThat(stored()).isZero();

    // Its record comes for the first time since, here or where the task went in between.
    send(event, 5);
    takeOver();
    send(event, 5);
    marker.committed();
    assertThat(stored()).isZero();
    assertThat(generator.submissions).hasSize(submitted);
    assertThat(seen('R')).as("its offset is committed now").isZero();
    send(event, 6);
    assertThat(generator.submissions).as("another record").hasSize(submitted + 1);
  }

  /** The next owner of the task, which has the stores, and has made a first commit. */
  private void takeOver() {
    processor.close();
    context.resetForwards();
    processor.init(context);
    for (int i = 0; i < 2; i++) {
      context.scheduledPunctuators().getLast().getPunctuator().punctuate(0);
      marker.flushCache();
      marker.committed();
    }
    context.scheduledPunctuators().getLast().getPunctuator().punctuate(0);
  }

  private long seenCancels() {
    return seen('C');
  }

  private long seen(char kind) {
    long count = 0;
    try (var all = seen.all()) {
      while (all.hasNext()) {
        count += all.next().key.get()[0] == kind ? 1 : 0;
      }
    }
    return count;
  }

  @Test
  void shouldSendTheOutcomeAgainOfAPromptThatCameAndEndedBetweenTwoCommits() {
    PromptEvent event = Harness.prompt("a").build();
    send(event, 0);
    generator.last().done("4");
    tick();
    assertThat(sentTo(Output.Sink.COMPLETION)).isEqualTo(1);
    assertThat(savedProgress()).hasSize(1);

    takeOver();
    assertThat(sentTo(Output.Sink.COMPLETION)).isEqualTo(1);
    // Its offset was not committed.
    send(event, 0);
    marker.committed();
    assertThat(sentTo(Output.Sink.COMPLETION)).isEqualTo(1);
    assertThat(generator.submissions).as("nothing is generated again").hasSize(1);
    assertThat(stored()).isZero();
    assertThat(savedProgress()).isEmpty();
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
    Punctuator ticking = context.scheduledPunctuators().getLast().getPunctuator();
    ticking.punctuate(0);
    assertThat(generator.submissions).as("before it has the task for certain").hasSize(1);
    marker.committed();
    ticking.punctuate(0);
    assertThat(generator.submissions).hasSize(2);
    assertThat(gate.kept()).isEqualTo(1);
  }

  @Test
  void shouldStopTheScheduleOfATaskThatIsRevived() {
    send(Harness.prompt("p").build(), 0);
    var before = context.scheduledPunctuators().getFirst();
    generator.last().delta("unsaved", 7);
    tick();
    processor.close();
    processor.init(context);
    assertThat(before.cancelled()).isTrue();
    var after = context.scheduledPunctuators().getLast();
    after.getPunctuator().punctuate(0);
    marker.committed();
    after.getPunctuator().punctuate(0);
    generator.last().done("4");
    // Kafka Streams may still have it in its queue.
    List<String> saved = savedProgress();
    context.setCurrentSystemTimeMs(1_010_000);
    before.getPunctuator().punctuate(0);
    assertThat(savedProgress()).as("the dead task writes nothing").isEqualTo(saved);
    assertThat(sentTo(Output.Sink.COMPLETION)).isZero();
    after.getPunctuator().punctuate(0);
    assertThat(sentTo(Output.Sink.COMPLETION)).isEqualTo(1);
    assertThat(gate.running()).isZero();
    assertThat(gate.kept()).isEqualTo(1);
  }

  @Test
  void shouldPutATasksSavedTokensTogetherWhereTwoOwnersSaved() {
    Tokens first = new Tokens();
    first.add(new int[] {1, 2, 300});
    byte[] shared = first.takeUnsaved((byte) 2, 1, 0);
    first.add(new int[] {4});
    byte[] zombie = first.takeUnsaved((byte) 2, 1, 0);
    Tokens second = new Tokens();
    restore(second, shared);
    second.add(new int[] {4, 5, 6});
    byte[] owner = second.takeUnsaved((byte) 2, 2, 0);

    Tokens third = new Tokens();
    restore(third, shared);
    restore(third, zombie);
    restore(third, owner);
    assertThat(third.toArray()).containsExactly(1, 2, 300, 4, 5, 6);

    // It may have got further than the owner: what that one saved later follows on its own.
    first.add(new int[] {5, 6, 7, 8});
    byte[] further = first.takeUnsaved((byte) 2, 1, 0);
    second.add(new int[] {7});
    byte[] later = second.takeUnsaved((byte) 2, 2, 0);
    Tokens fourth = new Tokens();
    for (byte[] saved : List.of(shared, zombie, further, owner, later)) {
      restore(fourth, saved);
    }
    assertThat(fourth.toArray()).containsExactly(1, 2, 300, 4, 5, 6, 7);

    Tokens gap = new Tokens();
    restore(gap, owner);
    assertThat(gap.size()).isZero();
  }

  private List<String> savedProgress() {
    List<String> found = new ArrayList<>();
    try (var all = progress.all()) {
      all.forEachRemaining(
          entry -> {
            if (!InFlightStore.isOwner(entry.key)) {
              found.add(entry.key + "=" + Arrays.toString(entry.value));
            }
          });
    }
    return found;
  }

  private static void restore(Tokens tokens, byte[] saved) {
    ByteBuffer in = ByteBuffer.wrap(saved);
    in.get();
    in.getInt();
    tokens.addSaved(in);
  }

  @Test
  void shouldSetAsideAStreamedPromptWhoseChunksNoTopicTakes() {
    limits.topicTakes(config.topics().chunks(), 2_000);
    send(
        Harness.prompt("p").setStream(true).setMetadata(Map.of("k", "v".repeat(4_000))).build(), 0);
    marker.committed();
    ScriptedGenerator.Submission call = generator.last();
    call.delta("word", 7);
    tick();
    assertThat(sentTo(Output.Sink.CHUNK)).isZero();
    assertThat(sentTo(Output.Sink.DEAD_LETTER)).isEqualTo(1);
    assertThat(call.cancelled).isTrue();
  }
}
