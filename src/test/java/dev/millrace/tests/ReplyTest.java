package dev.millrace.tests;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;

import dev.millrace.schemas.PromptEvent;
import dev.millrace.topology.SyntheticGenerator;
import dev.millrace.topology.Worker;
import dev.millrace.topology.cli.EventClient;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AdminClientConfig;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.junit.jupiter.api.extension.ExtendWith;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Request and reply as Spring's ReplyingKafkaTemplate does it, and requests that mean harm. */
@ExtendWith(LocalCluster.Extension.class)
final class ReplyTest {
  private static final Duration TIMEOUT = Duration.ofSeconds(60);

  @ParameterizedTest
  @ValueSource(strings = {"at_least_once", "exactly_once_v2"})
  void shouldReplyWhereAskedAndAnswerAllTheSame(String guarantee, Cluster cluster)
      throws Exception {
    try (Scene scene = Scene.on(cluster, Map.of("kafka.processing.guarantee", guarantee));
        SyntheticGenerator generator = SyntheticGenerator.atOnce("synthetic")) {
      String replies = scene.config().applicationId() + ".replies";
      String stuck = scene.config().applicationId() + ".stuck.replies";
      String small = scene.config().applicationId() + ".small.replies";
      String compacted = scene.config().applicationId() + ".compacted.replies";
      createTopic(cluster, replies, 3, Map.of());
      // No record is ever acknowledged here.
      createTopic(cluster, stuck, 1, Map.of("min.insync.replicas", "2"));
      createTopic(cluster, small, 1, Map.of("max.message.bytes", "100"));
      createTopic(cluster, compacted, 1, Map.of("cleanup.policy", "compact"));
      Worker worker = Workers.start(scene, generator);
      try {
        Map<String, Map<String, byte[]>> requests = new HashMap<>();
        requests.put("good", Map.of("kafka_replyTopic", replies.getBytes(UTF_8)));
        requests.put(
            "partition",
            Map.of("kafka_replyTopic", replies.getBytes(UTF_8), "kafka_replyPartition", number(2)));
        requests.put(
            "no-partition",
            Map.of("kafka_replyTopic", replies.getBytes(UTF_8), "kafka_replyPartition", number(3)));
        requests.put("missing", Map.of("kafka_replyTopic", "no.such.replies".getBytes(UTF_8)));
        requests.put(
            "source",
            Map.of("kafka_replyTopic", scene.config().topics().prompts().getBytes(UTF_8)));
        requests.put("internal", Map.of("kafka_replyTopic", "__replies".getBytes(UTF_8)));
        requests.put("stuck", Map.of("kafka_replyTopic", stuck.getBytes(UTF_8)));
        requests.put("small", Map.of("kafka_replyTopic", small.getBytes(UTF_8)));
        scene
            .client()
            .send(
                null,
                "no event".getBytes(UTF_8),
                Map.of("kafka_replyTopic", compacted.getBytes(UTF_8)))
            .get();
        requests.forEach(
            (id, headers) -> {
              Map<String, byte[]> all = new HashMap<>(headers);
              all.put("kafka_correlationId", ("c-" + id).getBytes(UTF_8));
              PromptEvent prompt = Prompts.user(id, "question", 3).build();
              scene.sendRaw(id, scene.client().serialize(prompt), all);
            });
        // Before a reply to the topic that takes none can have been given up.
        scene.awaitSettled(Duration.ofSeconds(25));

        List<ConsumerRecord<byte[], byte[]>> got = read(cluster, replies, 2);
        assertThat(got)
            .extracting(r -> header(r, "kafka_correlationId"))
            .containsExactlyInAnyOrder("c-good", "c-partition");
        assertThat(got)
            .filteredOn(r -> header(r, "kafka_correlationId").equals("c-partition"))
            .extracting(ConsumerRecord::partition)
            .containsExactly(2);
        assertThat(read(cluster, compacted, 1)).singleElement().matches(r -> r.value() == null);
        assertThat(read(cluster, small, 0)).isEmpty();
        assertThat(scene.ledger().completions()).hasSize(requests.size());
        for (EventClient.Outcome outcome : scene.outcomes()) {
          if (outcome instanceof EventClient.Outcome.Completion completion) {
            String id = completion.event().getPromptId();
            assertThat(header(completion.source(), "kafka_correlationId")).isEqualTo("c-" + id);
            if (id.equals("source") || id.equals("internal")) {
              assertThat(header(completion.source(), "millrace.reply.refused")).contains("own");
            }
          }
        }
        assertThat(worker.state()).isEqualTo(Worker.State.RUNNING);
      } finally {
        worker.close();
      }
    }
  }

  private static byte[] number(int value) {
    return ByteBuffer.allocate(Integer.BYTES).putInt(value).array();
  }

  private static void createTopic(
      Cluster cluster, String name, int partitions, Map<String, String> settings) throws Exception {
    try (Admin admin =
        Admin.create(Map.of(AdminClientConfig.BOOTSTRAP_SERVERS_CONFIG, cluster.bootstrap()))) {
      admin
          .createTopics(List.of(new NewTopic(name, partitions, (short) 1).configs(settings)))
          .all()
          .get();
    }
  }

  /** What is on the topic, once there are as many records as expected and a while after. */
  private static List<ConsumerRecord<byte[], byte[]>> read(
      Cluster cluster, String topic, int expected) {
    Properties settings = new Properties();
    settings.put(ConsumerConfig.BOOTSTRAP_SERVERS_CONFIG, cluster.bootstrap());
    settings.put(ConsumerConfig.ISOLATION_LEVEL_CONFIG, "read_committed");
    settings.put(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest");
    List<ConsumerRecord<byte[], byte[]>> got = new ArrayList<>();
    try (KafkaConsumer<byte[], byte[]> consumer =
        new KafkaConsumer<>(settings, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
      consumer.assign(
          consumer.partitionsFor(topic).stream()
              .map(p -> new TopicPartition(topic, p.partition()))
              .toList());
      long deadline = System.nanoTime() + TIMEOUT.toNanos();
      while (got.size() < expected && System.nanoTime() < deadline) {
        consumer.poll(Duration.ofMillis(100)).forEach(got::add);
      }
      consumer.poll(Duration.ofMillis(300)).forEach(got::add);
    }
    return got;
  }

  private static String header(ConsumerRecord<byte[], byte[]> record, String name) {
    Header header = record.headers().lastHeader(name);
    return header == null || header.value() == null ? "" : new String(header.value(), UTF_8);
  }
}
