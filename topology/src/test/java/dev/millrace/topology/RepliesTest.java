package dev.millrace.topology;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;

import dev.millrace.schemas.CompletionEvent;
import dev.millrace.topology.ReplyTopics.Found;
import java.nio.ByteBuffer;
import java.util.List;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.Headers;
import org.apache.kafka.common.header.internals.RecordHeaders;
import org.apache.kafka.streams.test.TestRecord;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/** Answers on the topics that requests name: a copy, whose failure costs nobody the answer. */
class RepliesTest {
  private static final String TOPIC = "their.replies";
  private static final byte[] CORRELATION = {0, -1, 7};

  private Harness harness = new Harness();

  @BeforeEach
  void know() {
    harness.replyTopics.topics.put(TOPIC, Found.usable(1, 10_000));
  }

  @AfterEach
  void close() {
    harness.close();
  }

  private static Headers request(String topic) {
    return new RecordHeaders()
        .add(Replies.TOPIC, topic.getBytes(UTF_8))
        .add(Carried.CORRELATION, CORRELATION);
  }

  private static byte[] header(TestRecord<?, ?> record, String name) {
    Header header = record.headers().lastHeader(name);
    return header == null ? new byte[0] : header.value();
  }

  private String refused() {
    List<TestRecord<byte[], CompletionEvent>> completions = harness.completions();
    assertThat(completions).as("the answer itself").hasSize(1);
    return new String(header(completions.getFirst(), Replies.REFUSED), UTF_8);
  }

  private void answered(Headers headers) {
    harness.send(Harness.prompt("p1").build(), headers);
    harness.generator.last().done("4");
    harness.tick();
  }

  @Test
  void shouldAnswerWhereTheRequestSaysAndEchoItsCorrelationId() {
    answered(request(TOPIC));
    TestRecord<byte[], CompletionEvent> reply = harness.replies(TOPIC).getFirst();
    assertThat(reply.value().getContent()).isEqualTo("4");
    assertThat(reply.key()).isEqualTo("p1".getBytes(UTF_8));
    assertThat(header(reply, Carried.CORRELATION)).isEqualTo(CORRELATION);
    assertThat(reply.headers().lastHeader(Replies.TOPIC)).isNull();
    assertThat(reply.headers().lastHeader(Replies.PARTITION)).isNull();
    TestRecord<byte[], CompletionEvent> completion = harness.completions().getFirst();
    assertThat(completion.value()).isEqualTo(reply.value());
    assertThat(header(completion, Carried.CORRELATION)).isEqualTo(CORRELATION);
    assertThat(completion.headers().lastHeader(Replies.REFUSED)).isNull();
    assertThat(harness.count("millrace.replies.sent")).isEqualTo(1);
  }

  @Test
  void shouldEchoTheCorrelationIdWithoutAReplyTopic() {
    answered(new RecordHeaders().add(Carried.CORRELATION, CORRELATION));
    assertThat(header(harness.completions().getFirst(), Carried.CORRELATION))
        .isEqualTo(CORRELATION);
    assertThat(harness.count("millrace.replies.sent")).isZero();
  }

  @Test
  void shouldAnswerOnThePartitionThatTheRequestNames() {
    answered(request(TOPIC).add(Replies.PARTITION, new byte[] {0, 0, 0, 0}));
    assertThat(harness.replies(TOPIC)).hasSize(1);
  }

  @ParameterizedTest
  @CsvSource({"1, has 1 partitions", "-1, has 1 partitions", "2147483647, has 1 partitions"})
  void shouldNotAnswerOnAPartitionThatIsNotThere(int partition, String problem) {
    answered(
        request(TOPIC).add(Replies.PARTITION, ByteBuffer.allocate(4).putInt(partition).array()));
    assertThat(refused()).contains(problem, TOPIC);
    assertThat(harness.replies(TOPIC)).isEmpty();
  }

  @Test
  void shouldNotGuessAPartitionThatIsNoNumber() {
    answered(request(TOPIC).add(Replies.PARTITION, "0".getBytes(UTF_8)));
    assertThat(refused()).contains("has 1 bytes, it must be a number of 4");
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "millrace.prompts",
        "millrace.completions",
        "test-prompts-changelog",
        "__consumer_offsets_replies",
        "payments",
        "a b replies",
        "",
        "../replies",
        "\u0000replies"
      })
  void shouldRefuseATopicThatIsNotForReplies(String topic) {
    // Known topics, so that nothing but the name can refuse them.
    harness.replyTopics.topics.put(topic, Found.usable(1, 10_000));
    answered(request(topic));
    assertThat(refused()).isNotEmpty();
    assertThat(harness.count("millrace.replies.refused")).isEqualTo(1);
    assertThat(harness.count("millrace.replies.sent")).isZero();
  }

  @Test
  void shouldRefuseTheSourceTopicEvenIfTheSettingAllowsIt() {
    harness.close();
    harness = new Harness("reply.topics", ".*");
    harness.replyTopics.topics.put("millrace.prompts", Found.usable(1, 10_000));
    answered(request("millrace.prompts"));
    assertThat(refused()).contains("one of the worker's own");
    assertThat(harness.generator.submissions).hasSize(1);
  }

  @Test
  void shouldSayWhyATopicCannotBeUsed() {
    harness.replyTopics.failed("gone.replies", "there is no topic gone.replies");
    answered(request("gone.replies"));
    assertThat(refused()).isEqualTo("there is no topic gone.replies");
  }

  @Test
  void shouldNotSendWhatTheTopicDoesNotTake() {
    harness.replyTopics.topics.put(TOPIC, Found.usable(1, 100));
    answered(request(TOPIC));
    assertThat(refused()).contains("takes 100");
    assertThat(harness.replies(TOPIC)).isEmpty();
  }

  @Test
  void shouldNotAnswerBesideACorrelationIdThatIsNotEchoed() {
    Headers headers = request(TOPIC).remove(Carried.CORRELATION);
    answered(headers.add(Carried.CORRELATION, new byte[Carried.MOST_CORRELATION + 1]));
    assertThat(refused()).contains("has 1025 bytes");
    assertThat(harness.replies(TOPIC)).isEmpty();
  }

  @Test
  void shouldHoldTheAnswerWhileTheTopicIsLookedUp() {
    answered(request("late.replies"));
    harness.tick();
    assertThat(harness.completions()).isEmpty();
    assertThat(harness.gate.running()).isEqualTo(1);
    harness.replyTopics.topics.put("late.replies", Found.usable(1, 10_000));
    harness.tick();
    assertThat(harness.replies("late.replies")).hasSize(1);
    assertThat(harness.completions()).hasSize(1);
    assertThat(harness.gate.running()).isZero();
  }

  @Test
  void shouldReplyToAPromptThatIsADeadLetter() {
    harness.send(Harness.prompt("p1").setModel("other").build(), request(TOPIC));
    TestRecord<byte[], CompletionEvent> reply = harness.replies(TOPIC).getFirst();
    assertThat(reply.value()).isNull();
    assertThat(header(reply, Carried.CORRELATION)).isEqualTo(CORRELATION);
    assertThat(header(reply, DeadLetters.REASON)).isEqualTo("MODEL_NOT_SERVED".getBytes(UTF_8));
    assertThat(new String(header(reply, DeadLetters.MESSAGE), UTF_8)).contains("'other'");
    assertThat(header(reply, DeadLetters.STACKTRACE)).isEmpty();
    assertThat(harness.deadLetters()).hasSize(1);
  }

  @Test
  void shouldReplyToARefusedRecordOnceItsTopicIsLookedUp() {
    harness.send(Harness.prompt("p1").setModel("other").build(), request("late.replies"));
    assertThat(harness.deadLetters()).as("does not wait").hasSize(1);
    harness.replyTopics.topics.put("late.replies", Found.usable(1, 10_000));
    harness.tick();
    harness.tick();
    assertThat(harness.replies("late.replies")).hasSize(1);
  }

  @Test
  void shouldReplyAgainWhenAnotherWorkerSendsTheAnswerAgain() {
    harness.send(Harness.prompt("p1").build(), request(TOPIC));
    harness.tick();
    harness.generator.last().done("4");
    harness.tick();
    try (Harness next = harness.successor()) {
      next.tick();
      assertThat(next.completions()).as("it waits for the topic").isEmpty();
      next.replyTopics.topics.put(TOPIC, Found.usable(1, 10_000));
      next.tick();
      assertThat(next.generator.submissions).isEmpty();
      assertThat(next.replies(TOPIC)).hasSize(1);
      assertThat(next.completions()).hasSize(1);
    }
  }
}
