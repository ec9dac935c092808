package dev.millrace.topology;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;

import dev.millrace.schemas.CompletionEvent;
import java.util.List;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.Headers;
import org.apache.kafka.common.header.internals.RecordHeaders;
import org.apache.kafka.streams.test.TestRecord;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Answers on the topics that requests name: a copy, whose failure costs nobody the answer. */
class RepliesTest {
  private static final String TOPIC = "their.replies";
  private static final byte[] CORRELATION = {0, -1, 7};

  private Harness harness = new Harness();

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
    assertThat(harness.replies).extracting(ReplyOutbox.Reply::partition).containsExactly(-1);
  }

  @Test
  void shouldEchoTheCorrelationIdWithoutAReplyTopic() {
    answered(new RecordHeaders().add(Carried.CORRELATION, CORRELATION));
    assertThat(header(harness.completions().getFirst(), Carried.CORRELATION))
        .isEqualTo(CORRELATION);
    assertThat(harness.replies).isEmpty();
  }

  @Test
  void shouldAnswerOnThePartitionThatTheRequestNames() {
    answered(request(TOPIC).add(Replies.PARTITION, new byte[] {0, 0, 1, 2}));
    assertThat(harness.replies).extracting(ReplyOutbox.Reply::partition).containsExactly(258);
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
    answered(request(topic));
    assertThat(refused()).isNotEmpty();
    assertThat(harness.count("millrace.replies.refused")).isEqualTo(1);
    assertThat(harness.replies).isEmpty();
  }

  @Test
  void shouldNotAnswerBesideACorrelationIdThatIsNotEchoed() {
    Headers headers = request(TOPIC).remove(Carried.CORRELATION);
    answered(headers.add(Carried.CORRELATION, new byte[Carried.MOST_CORRELATION + 1]));
    assertThat(refused()).contains("has 1025 bytes");
    assertThat(harness.replies(TOPIC)).isEmpty();
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

  @ParameterizedTest
  @ValueSource(
      strings = {
        "millrace.prompts",
        "millrace.cancels",
        "millrace.completions",
        "millrace.tool-calls",
        "millrace.chunks",
        "millrace.dead-letters",
        "test-prompts-changelog",
        "other-app-store-changelog",
        "other-app-join-repartition",
        "__consumer_offsets",
        "__transaction_state",
        "a b",
        ""
      })
  void shouldRefuseTopicsOfTheWorkerAndOfKafkaEvenIfTheSettingAllowsAny(String topic) {
    harness.close();
    harness = new Harness("reply.topics", ".*");
    answered(request(topic));
    assertThat(refused()).isNotEmpty().doesNotContain("reply.topics");
    assertThat(harness.replies).isEmpty();
    assertThat(harness.generator.submissions).hasSize(1);
  }

  @Test
  void shouldNotAnswerOnAPartitionBelowZero() {
    answered(request(TOPIC).add(Replies.PARTITION, new byte[] {-1, -1, -1, -1}));
    assertThat(refused()).isEqualTo("kafka_replyPartition is -1");
    assertThat(harness.replies).isEmpty();
  }

  @Test
  void shouldSayWhyTheOutboxTookNoReply() {
    harness.replyProblem = "too many replies wait";
    answered(request(TOPIC));
    assertThat(refused()).isEqualTo("too many replies wait");
  }

  @Test
  void shouldKeepNoLargeKeyAndNoOtherHeaderForARefusal() {
    Headers headers = request(TOPIC).add("theirs", new byte[100_000]);
    harness.send(
        new byte[Replies.MOST_REFUSED_KEY + 1],
        harness.bytes(Harness.prompt("p1").setModel("other").build()),
        headers);
    ReplyOutbox.Reply reply = harness.replies.getFirst();
    assertThat(new String(reply.key(), UTF_8)).isEqualTo("millrace.prompts-0@0");
    assertThat(reply.size()).isLessThan(2_000);
    assertThat(harness.deadLetters().getFirst().key()).hasSize(Replies.MOST_REFUSED_KEY + 1);
  }

  @Test
  void shouldGiveARefusalAKeyWhereThePromptHasNone() {
    harness.send(
        null, harness.bytes(Harness.prompt("p1").setModel("other").build()), request(TOPIC));
    assertThat(new String(harness.replies.getFirst().key(), UTF_8))
        .isEqualTo("millrace.prompts-0@0");
  }

  @Test
  void shouldReplyAgainWhenAnotherWorkerSendsTheAnswerAgain() {
    harness.send(Harness.prompt("p1").build(), request(TOPIC));
    harness.tick();
    harness.generator.last().done("4");
    harness.tick();
    try (Harness next = harness.successor()) {
      next.tick();
      assertThat(next.generator.submissions).isEmpty();
      assertThat(next.replies(TOPIC)).hasSize(1);
      assertThat(next.completions()).hasSize(1);
    }
  }
}
