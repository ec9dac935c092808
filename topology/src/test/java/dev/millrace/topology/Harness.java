package dev.millrace.topology;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;

import dev.millrace.schemas.CancelEvent;
import dev.millrace.schemas.ChunkEvent;
import dev.millrace.schemas.CompletionEvent;
import dev.millrace.schemas.MessageRole;
import dev.millrace.schemas.PromptEvent;
import dev.millrace.schemas.PromptMessage;
import dev.millrace.schemas.ToolCallEvent;
import io.micrometer.core.instrument.Counter;
import io.micrometer.core.instrument.simple.SimpleMeterRegistry;
import io.opentelemetry.api.OpenTelemetry;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.common.header.Headers;
import org.apache.kafka.common.header.internals.RecordHeaders;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.TestInputTopic;
import org.apache.kafka.streams.TopologyTestDriver;
import org.apache.kafka.streams.state.KeyValueIterator;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.test.TestRecord;
import org.jspecify.annotations.Nullable;

/** A topology without a broker, and a generator that a test leads by the hand. */
final class Harness implements AutoCloseable {
  static final Instant START = Instant.parse("2026-01-01T00:00:00Z");
  private static final ByteArrayDeserializer BYTES = new ByteArrayDeserializer();

  final ScriptedGenerator generator = new ScriptedGenerator();
  final WorkerConfig config;
  final Gate gate;
  final OutputLimits limits;
  final SimpleMeterRegistry registry = new SimpleMeterRegistry();
  final TopologyTestDriver driver;
  final List<String> engineFailures = new ArrayList<>();
  final EventCodecs codecs;

  /** Replies that went to the outbox. */
  final List<ReplyOutbox.Reply> replies = new ArrayList<>();

  /** Why the outbox takes no reply; null: it does. */
  @Nullable String replyProblem;

  private final Quarantine quarantine;
  private final TestInputTopic<byte[], byte[]> prompts;
  private final TestInputTopic<byte[], byte[]> cancels;
  private boolean closed;

  /** Took over from one that crashed: its first prompts wait for a commit. */
  private boolean tookOver;

  Harness(String... settings) {
    this(OpenTelemetry.noop(), settings);
  }

  Harness(OpenTelemetry telemetry, String... settings) {
    this(telemetry, Map.of(), settings);
    // It has the task for certain: prompts are submitted as they come.
    advance(PromptProcessor.TICK);
  }

  /** One that has just been given the task, with these stores. */
  Harness(OpenTelemetry telemetry, Map<String, Map<Bytes, byte[]>> stores, String... settings) {
    this(telemetry, stores, new Quarantine(), settings);
  }

  private Harness(
      OpenTelemetry telemetry,
      Map<String, Map<Bytes, byte[]>> stores,
      Quarantine quarantine,
      String... settings) {
    this.quarantine = quarantine;
    Map<String, String> values = new HashMap<>();
    values.put("kafka.bootstrap.servers", "nowhere:9092");
    values.put("kafka.application.id", "test");
    values.put("registry.url", "mock://topology-tests");
    values.put("status.port", "-1");
    for (int i = 0; i < settings.length; i += 2) {
      values.put(settings[i], settings[i + 1]);
    }
    config = WorkerConfig.of(values);
    gate = new Gate(config.window());
    limits = new OutputLimits(config.maxPromptBytes());
    codecs = new EventCodecs(config);
    Services services =
        new Services(
            config,
            generator,
            new EventMapper(
                ScriptedGenerator.MODEL, new EventMapper.SamplingDefaults(0.25f, 0.5f, 40, 77)),
            gate,
            new WorkerMetrics(registry, ScriptedGenerator.MODEL),
            limits,
            codecs,
            this::takeReply,
            new CloudEvents(config.cloudEventsSource()),
            new Tracing(telemetry, "test"),
            quarantine,
            new SaveBudget(config.save().bytesPerSecond()),
            engineFailures::add);
    Properties properties = KafkaSettings.of(config);
    // There is no broker to ask for its default.
    properties.put("replication.factor", 1);
    driver = new TopologyTestDriver(WorkerTopology.of(services), properties, START);
    // The driver commits after every turn: what is done at a commit is put off to the next tick
    // here,
    // so that a test can look between the two. RetirementTest has it at the commit.
    marker().onCommit(null);
    prompts =
        driver.createInputTopic(
            config.topics().prompts(), new ByteArraySerializer(), new ByteArraySerializer());
    cancels =
        driver.createInputTopic(
            config.topics().cancels(), new ByteArraySerializer(), new ByteArraySerializer());
    stores.forEach((name, entries) -> entries.forEach((key, value) -> store(name).put(key, value)));
  }

  static PromptEvent.Builder prompt(String id) {
    return PromptEvent.newBuilder()
        .setId(id)
        .setMessages(
            List.of(
                PromptMessage.newBuilder()
                    .setRole(MessageRole.USER)
                    .setContent("What is 2 + 2?")
                    .build()));
  }

  byte[] bytes(PromptEvent event) {
    return codecs.prompts.serializer().serialize(config.topics().prompts(), event);
  }

  void send(PromptEvent event) {
    send(event.getId().getBytes(UTF_8), bytes(event), Map.of());
  }

  void send(byte @Nullable [] key, byte @Nullable [] value, Map<String, String> headers) {
    Headers made = new RecordHeaders();
    headers.forEach((name, text) -> made.add(name, text.getBytes(UTF_8)));
    prompts.pipeInput(new TestRecord<>(key, value, made, START));
  }

  /** Headers that are no text. */
  void send(PromptEvent event, Headers headers) {
    prompts.pipeInput(
        new TestRecord<>(event.getId().getBytes(UTF_8), bytes(event), headers, START));
  }

  void send(byte @Nullable [] key, byte[] value, Headers headers) {
    prompts.pipeInput(new TestRecord<>(key, value, headers, START));
  }

  void cancel(String id) {
    cancel(id, new RecordHeaders());
  }

  void cancel(String id, Headers headers) {
    byte[] value =
        codecs
            .cancels
            .serializer()
            .serialize(config.topics().cancels(), CancelEvent.newBuilder().setPromptId(id).build());
    cancels.pipeInput(new TestRecord<>(null, value, headers, START));
  }

  /** One punctuation, and the commit after it. */
  void tick() {
    if (tookOver) {
      tookOver = false;
      advance(PromptProcessor.TICK);
    }
    advance(PromptProcessor.TICK);
  }

  /** The task is taken away in good order, after a turn and before the commit that follows it. */
  void handOver() {
    generator.onStatus =
        () -> {
          generator.onStatus = null;
          gate.handOver(List.of(0));
        };
    advance(Duration.ofMillis(50));
    assertThat(generator.onStatus).isNull();
  }

  CommitMarker marker() {
    return (CommitMarker) driver.getStateStore(CommitMarker.NAME);
  }

  void advance(Duration time) {
    driver.advanceWallClockTime(time);
  }

  List<TestRecord<byte[], CompletionEvent>> completions() {
    return read(config.topics().completions(), codecs.completions.deserializer());
  }

  List<TestRecord<byte[], ToolCallEvent>> toolCalls() {
    return read(config.topics().toolCalls(), codecs.toolCalls.deserializer());
  }

  List<TestRecord<byte[], ChunkEvent>> chunks() {
    return read(config.topics().chunks(), codecs.chunks.deserializer());
  }

  List<TestRecord<byte[], byte[]>> deadLetters() {
    return read(config.topics().deadLetters(), BYTES);
  }

  List<TestRecord<byte[], CompletionEvent>> replies(String topic) {
    return replies.stream()
        .filter(reply -> reply.topic().equals(topic))
        .map(
            reply ->
                new TestRecord<>(
                    reply.key(),
                    codecs.completions.deserializer().deserialize(topic, reply.value()),
                    reply.headers(),
                    START))
        .toList();
  }

  private @Nullable String takeReply(ReplyOutbox.Reply reply) {
    if (replyProblem == null) {
      replies.add(reply);
    }
    return replyProblem;
  }

  /** What was written to a store about prompts. */
  List<TestRecord<byte[], byte[]>> changelog(String store) {
    return read("test-" + store + "-changelog", BYTES).stream()
        .filter(entry -> !InFlightStore.isOwner(Bytes.wrap(entry.key())))
        .toList();
  }

  private <T> List<TestRecord<byte[], T>> read(String topic, Deserializer<T> deserializer) {
    return driver.producedTopicNames().contains(topic)
        ? driver.createOutputTopic(topic, BYTES, deserializer).readRecordsToList()
        : List.of();
  }

  KeyValueStore<Bytes, byte[]> store(String name) {
    return driver.getKeyValueStore(name);
  }

  /** How many entries about prompts a store has. */
  int stored(String name) {
    int count = 0;
    try (KeyValueIterator<Bytes, byte[]> all = store(name).all()) {
      while (all.hasNext()) {
        Bytes key = all.next().key;
        // Notes of the task's owner are no prompt's; only this store has any.
        count += name.equals(InFlightStore.PROGRESS) && InFlightStore.isOwner(key) ? 0 : 1;
      }
    }
    return count;
  }

  /** Another worker with what this one has in its stores, as after a crash. */
  Harness successor(String... settings) {
    return successor(stores(), settings);
  }

  /**
   * Another worker, after a crash that nothing outlived but these stores: the turn in which it came
   * was not committed.
   */
  static Harness successor(Map<String, Map<Bytes, byte[]>> committed, String... settings) {
    Harness next = new Harness(OpenTelemetry.noop(), committed, settings);
    next.tookOver = true;
    return next;
  }

  /** The same worker, which has lost the task without a word and got it back. */
  Harness revived() {
    Map<String, Map<Bytes, byte[]>> committed = stores();
    closeDriver();
    Harness next = new Harness(OpenTelemetry.noop(), committed, quarantine);
    next.tookOver = true;
    return next;
  }

  /** What the stores hold: between two turns, what is committed. */
  Map<String, Map<Bytes, byte[]>> stores() {
    Map<String, Map<Bytes, byte[]>> stores = new HashMap<>();
    for (String name : List.of(InFlightStore.PROMPTS, InFlightStore.PROGRESS, InFlightStore.SEEN)) {
      Map<Bytes, byte[]> entries = new HashMap<>();
      try (KeyValueIterator<Bytes, byte[]> all = store(name).all()) {
        while (all.hasNext()) {
          KeyValue<Bytes, byte[]> entry = all.next();
          entries.put(entry.key, entry.value);
        }
      }
      stores.put(name, entries);
    }
    return stores;
  }

  /**
   * What a worker wrote of its prompts' progress comes late, over what this one has.
   *
   * @param before its stores when this one took over
   */
  void takeIn(Harness cutOff, Map<String, Map<Bytes, byte[]>> before) {
    Map<Bytes, byte[]> known = before.getOrDefault(InFlightStore.PROGRESS, Map.of());
    cutOff
        .stores()
        .getOrDefault(InFlightStore.PROGRESS, Map.of())
        .forEach(
            (key, value) -> {
              if (!known.containsKey(key)) {
                store(InFlightStore.PROGRESS).put(key, value);
              }
            });
  }

  /** Nothing is left in stores or window. */
  void assertNothingKept() {
    tick();
    tick();
    assertThat(gate.kept()).isZero();
    assertThat(gate.running()).isZero();
    assertThat(stored(InFlightStore.PROMPTS)).isZero();
    assertThat(stored(InFlightStore.PROGRESS)).isZero();
  }

  double count(String name) {
    return registry.get(name).counters().stream().mapToDouble(Counter::count).sum();
  }

  /** The task is gone. */
  void closeDriver() {
    if (!closed) {
      closed = true;
      driver.close();
    }
  }

  @Override
  public void close() {
    closeDriver();
    codecs.close();
  }
}
