package dev.millrace.topology;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;

import dev.millrace.topology.BrokerReplies.Bounds;
import dev.millrace.topology.ReplyOutbox.Refusal;
import dev.millrace.topology.ReplyOutbox.Reply;
import io.micrometer.core.instrument.simple.SimpleMeterRegistry;
import io.opentelemetry.context.Context;
import java.util.ArrayDeque;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.LockSupport;
import java.util.function.BooleanSupplier;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.MockProducer;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.errors.RecordTooLargeException;
import org.apache.kafka.common.errors.TimeoutException;
import org.apache.kafka.common.header.internals.RecordHeaders;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;

/** Replies on their way: whatever becomes of them, nobody waits for it. */
class BrokerRepliesTest {
  private static final String TOPIC = "their.replies";

  private final SimpleMeterRegistry registry = new SimpleMeterRegistry();
  private final Known topics = new Known();
  private final ArrayDeque<MockProducer<byte[], byte[]>> producers = new ArrayDeque<>();
  private final MockProducer<byte[], byte[]> producer = producer();
  private @Nullable BrokerReplies replies;

  /** Topics as a test has them. */
  private static final class Known implements ReplyTopics {
    private final Map<String, Found> topics =
        new ConcurrentHashMap<>(Map.of(TOPIC, Found.usable(3), "other", Found.usable(1)));
    private final CountDownLatch answers = new CountDownLatch(1);
    private volatile boolean hang;
    private volatile @Nullable String bad;
    private volatile @Nullable String forgotten;
    private volatile boolean closed;

    @Override
    public Found find(String topic) throws InterruptedException {
      if (hang) {
        answers.await();
      }
      return topics.getOrDefault(topic, Found.unusable("there is no topic " + topic));
    }

    @Override
    public @Nullable String problem(String topic) {
      return bad;
    }

    @Override
    public void forget(String topic) {
      forgotten = topic;
    }

    @Override
    public void close() {
      closed = true;
    }
  }

  private MockProducer<byte[], byte[]> producer() {
    MockProducer<byte[], byte[]> made =
        new MockProducer<>(false, null, new ByteArraySerializer(), new ByteArraySerializer());
    producers.add(made);
    return made;
  }

  private BrokerReplies start(Bounds bounds) {
    BrokerReplies made =
        new BrokerReplies(producers::remove, topics, new WorkerMetrics(registry, "m"), bounds);
    replies = made;
    made.start();
    return made;
  }

  private BrokerReplies start() {
    return start(new Bounds(16, 100_000));
  }

  @AfterEach
  void close() {
    topics.answers.countDown();
    if (replies != null) {
      replies.close();
    }
  }

  private static Reply reply(String topic, int partition, int bytes) {
    return new Reply(
        topic,
        partition,
        "k".getBytes(UTF_8),
        new byte[bytes],
        new RecordHeaders().add("kafka_correlationId", new byte[] {7}),
        Context.root());
  }

  private static Reply reply(String topic) {
    return reply(topic, -1, 10);
  }

  private static void await(BooleanSupplier condition) {
    long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(20);
    while (!condition.getAsBoolean()) {
      assertThat(System.nanoTime()).as("time to wait").isLessThan(deadline);
      LockSupport.parkNanos(1_000_000);
    }
  }

  private void awaitSent(int count) {
    await(() -> producer.history().size() == count);
  }

  private void awaitRefused(Refusal why, int count) {
    await(() -> refused(why) == count);
  }

  private double refused(Refusal why) {
    return registry.get("millrace.replies.refused").tag("reason", why.name()).counter().count();
  }

  private double sent() {
    return registry.get("millrace.replies.sent").counter().count();
  }

  @Test
  void shouldSendWithKeyPartitionAndHeadersAndCountWhatIsAcknowledged() {
    assertThat(start().offer(reply(TOPIC, 2, 10))).isNull();
    awaitSent(1);
    ProducerRecord<byte[], byte[]> record = producer.history().getFirst();
    assertThat(record.topic()).isEqualTo(TOPIC);
    assertThat(record.partition()).isEqualTo(2);
    assertThat(record.key()).isEqualTo("k".getBytes(UTF_8));
    assertThat(record.headers().lastHeader("kafka_correlationId").value()).containsExactly(7);
    assertThat(sent()).isZero();
    producer.completeNext();
    await(() -> sent() == 1);
  }

  @Test
  void shouldRefuseWhatDoesNotFitInsteadOfWaiting() {
    topics.hang = true;
    BrokerReplies replies = start(new Bounds(8, 100_000));
    assertThat(replies.offer(reply(TOPIC))).isNull();
    assertThat(replies.offer(reply(TOPIC))).isNull();
    assertThat(replies.offer(reply(TOPIC)))
        .isEqualTo("too many replies wait to be sent, 2 of them to topic their.replies");
    assertThat(refused(Refusal.BUSY)).isEqualTo(1);
  }

  @Test
  void shouldLeaveRoomForOtherTopicsWhenOneTakesNothing() {
    BrokerReplies replies = start();
    while (replies.offer(reply(TOPIC)) == null) {
      assertThat(producer.history()).hasSizeLessThan(16);
    }
    assertThat(replies.offer(reply("other"))).isNull();
    awaitSent(5);
    assertThat(producer.history().getLast().topic()).isEqualTo("other");
  }

  @Test
  void shouldBoundBytesAsWell() {
    topics.hang = true;
    BrokerReplies replies = start();
    assertThat(replies.offer(reply(TOPIC, -1, 100_001))).contains("too many");
    assertThat(replies.offer(reply(TOPIC, -1, 50_000))).as("alone it may be large").isNull();
    assertThat(replies.offer(reply(TOPIC, -1, 10))).contains("too many");
    assertThat(replies.offer(reply("other", -1, 60_000))).contains("too many");
    assertThat(replies.offer(reply("other", -1, 40_000))).isNull();
  }

  @Test
  void shouldTakeMoreOnceSomeAreAcknowledgedOrGivenUp() {
    BrokerReplies replies = start(new Bounds(2, 100_000));
    for (int i = 0; i < 10; i++) {
      assertThat(replies.offer(reply(TOPIC))).as("reply %d", i).isNull();
      awaitSent(i + 1);
      if (i % 2 == 0) {
        producer.completeNext();
      } else {
        producer.errorNext(new TimeoutException("late"));
      }
    }
    assertThat(sent()).isEqualTo(5);
    assertThat(refused(Refusal.FAILED)).isEqualTo(5);
  }

  @Test
  void shouldNotHoldARecordsSizeAgainstItsTopic() {
    start().offer(reply(TOPIC));
    awaitSent(1);
    producer.errorNext(new RecordTooLargeException("large"));
    awaitRefused(Refusal.TOO_LARGE, 1);
    assertThat(topics.forgotten).isNull();
  }

  @Test
  void shouldLookAgainAtATopicThatTookNoReply() {
    start().offer(reply(TOPIC));
    awaitSent(1);
    producer.errorNext(new TimeoutException("gone"));
    awaitRefused(Refusal.FAILED, 1);
    assertThat(topics.forgotten).isEqualTo(TOPIC);
  }

  @Test
  void shouldNotHandTheProducerATopicThatIsNotThere() {
    BrokerReplies replies = start();
    replies.offer(reply("missing"));
    replies.offer(reply(TOPIC, 3, 10));
    replies.offer(reply(TOPIC));
    awaitSent(1);
    assertThat(refused(Refusal.TOPIC)).isEqualTo(2);
    assertThat(producer.history().getFirst().partition()).isNull();
  }

  @Test
  void shouldSayAtOnceWhatIsKnownOfATopic() {
    topics.bad = "there is no topic x";
    assertThat(start().offer(reply("x"))).isEqualTo("there is no topic x");
    assertThat(refused(Refusal.TOPIC)).isEqualTo(1);
  }

  @Test
  void shouldHaveANewProducerAfterOneThatFailedForGood() {
    MockProducer<byte[], byte[]> second = producer();
    producer.sendException = new KafkaException("in an error state");
    BrokerReplies replies = start();
    replies.offer(reply(TOPIC));
    awaitRefused(Refusal.FAILED, 1);
    assertThat(producer.closed()).isTrue();
    replies.offer(reply(TOPIC));
    await(() -> second.history().size() == 1);
  }

  @Test
  void shouldSendWhatWaitsWhenItCloses() {
    BrokerReplies replies = start();
    for (int i = 0; i < 4; i++) {
      replies.offer(reply(TOPIC));
    }
    replies.close();
    assertThat(producer.history()).hasSize(4);
    assertThat(producer.closed()).isTrue();
    assertThat(topics.closed).isTrue();
    assertThat(replies.offer(reply(TOPIC))).isEqualTo("the worker is closing");
  }

  @Test
  void shouldCloseAllTheSameWhenTheBrokerDoesNotAnswer() {
    topics.hang = true;
    BrokerReplies replies = start();
    replies.offer(reply(TOPIC));
    replies.offer(reply(TOPIC));
    replies.close();
    assertThat(refused(Refusal.BUSY)).isEqualTo(2);
    assertThat(topics.closed).isTrue();
  }

  @Test
  void shouldConnectAsTheWorkerDoesWithTimesOfItsOwn() {
    WorkerConfig config =
        WorkerConfig.of(
            Map.of(
                "kafka.bootstrap.servers", "localhost:1",
                "kafka.application.id", "app",
                "kafka.processing.guarantee", "exactly_once_v2",
                "kafka.producer.client.dns.lookup", "resolve_canonical_bootstrap_servers_only",
                "kafka.producer.linger.ms", "600000",
                "kafka.producer.batch.size", "2000000000",
                "kafka.producer.max.in.flight.requests.per.connection", "50",
                "kafka.producer.delivery.timeout.ms", "2147483647",
                "registry.url", "mock://replies"));
    Map<String, Object> settings = BrokerReplies.settings(config);
    assertThat(settings)
        .containsEntry("client.dns.lookup", "resolve_canonical_bootstrap_servers_only")
        .containsEntry(ProducerConfig.DELIVERY_TIMEOUT_MS_CONFIG, 30_000)
        .containsEntry(ProducerConfig.ACKS_CONFIG, "all")
        .doesNotContainKey(ProducerConfig.TRANSACTIONAL_ID_CONFIG);
    try (var made =
        new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer())) {
      assertThat(List.of(made)).as("settings that a producer takes").hasSize(1);
    }
  }
}
