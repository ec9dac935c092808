package dev.millrace.topology;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.HashMap;
import java.util.Map;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.streams.StreamsConfig;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class WorkerConfigTest {
  private static final Map<String, String> LEAST =
      Map.of("kafka.bootstrap.servers", "localhost:9092");

  private static WorkerConfig with(String name, String value) {
    return WorkerConfig.of(LEAST).with(Map.of(name, value));
  }

  private static void assertRefused(String name, String value, String... texts) {
    assertThatThrownBy(() -> with(name, value))
        .isInstanceOf(ConfigException.class)
        .hasMessageContaining(name)
        .satisfies(e -> assertThat(e.getMessage()).contains(texts));
  }

  @Test
  void shouldHaveDefaultsThatItsDocumentationNames() {
    WorkerConfig config = WorkerConfig.of(LEAST);
    assertThat(config.topics().prompts()).isEqualTo("millrace.prompts");
    assertThat(config.window()).extracting("prompts", "tokens").containsExactly(512, 0L);
    assertThat(config.save())
        .isEqualTo(new WorkerConfig.Save(16, Duration.ofSeconds(2), 8 << 20, 64));
    assertThat(config.dedup().retention()).isEqualTo(Duration.ofHours(1));
    assertThat(config.maxPromptBytes()).isEqualTo(32 * 1024 * 1024);
    assertThat(config.exactlyOnce()).isFalse();
    assertThat(config.applicationId()).isEqualTo("millrace");
    assertThat(Settings.ALL).allSatisfy(s -> assertThat(s.doc()).endsWith("."));
  }

  @Test
  void shouldRefuseAnUnknownKeyAndNameTheNearest() {
    assertRefused("topics.promts", "x", "unknown", "'topics.prompts'");
    assertRefused("bootstrap.servers", "x", "kafka.");
  }

  @Test
  void shouldRefuseAMisspeltSettingOfKafkas() {
    assertRefused("kafka.bootsrap.servers", "x", "'kafka.bootstrap.servers'");
    assertRefused("kafka.producer.linger.sm", "1", "'kafka.producer.linger.ms'");
    assertRefused(
        "kafka.main.consumer.sasl.mechanisn", "x", "'kafka.main.consumer.sasl.mechanism'");
    // A plug-in's own name is none of ours to judge.
    with("kafka.producer.our.interceptor.level", "3");
  }

  @Test
  void shouldGiveTlsAndSaslToEveryClient() {
    WorkerConfig config =
        WorkerConfig.of(LEAST)
            .with(
                Map.of(
                    "kafka.security.protocol", "SASL_SSL",
                    "kafka.sasl.mechanism", "SCRAM-SHA-512",
                    "kafka.sasl.jaas.config", "x.ScramLoginModule required password=\"s3cret\";",
                    "kafka.ssl.truststore.location", "/trust.p12",
                    "kafka.ssl.truststore.password", "s3cret",
                    "kafka.admin.sasl.mechanism", "PLAIN",
                    "kafka.producer.ssl.key.password", "s3cret",
                    "registry.basic.auth.user.info", "ann:s3cret"));
    StreamsConfig streams = new StreamsConfig(KafkaSettings.of(config));
    Map<String, Map<String, Object>> clients =
        Map.of(
            "consumer", streams.getMainConsumerConfigs("g", "c", 1),
            "restore", streams.getRestoreConsumerConfigs("c"),
            "producer", streams.getProducerConfigs("c"),
            "admin", streams.getAdminConfigs("c"),
            "our admin", ClientSettings.admin(config),
            "our producer", ClientSettings.producer(config),
            "our consumer", ClientSettings.consumer(config));
    clients.forEach(
        (name, client) -> {
          assertThat(client)
              .as(name)
              .containsEntry("security.protocol", "SASL_SSL")
              .containsEntry("ssl.truststore.location", "/trust.p12")
              .containsEntry("sasl.mechanism", name.endsWith("admin") ? "PLAIN" : "SCRAM-SHA-512")
              .containsKey("sasl.jaas.config");
          assertThat(String.valueOf(client.get("ssl.key.password")))
              .as(name)
              .isEqualTo(name.endsWith("producer") ? "s3cret" : "null");
        });
    assertThat(config.toString()).contains("SASL_SSL", "[hidden]").doesNotContain("s3cret");
    assertThat(config.serdeSettings()).containsEntry("basic.auth.user.info", "ann:s3cret");
  }

  @Test
  void shouldWantABroker() {
    assertThatThrownBy(() -> WorkerConfig.of(Map.of()))
        .isInstanceOf(ConfigException.class)
        .hasMessageContaining("kafka.bootstrap.servers");
  }

  @Test
  void shouldRefuseValuesOutOfRangeAtOnce() {
    assertRefused("window.prompts", "0", "'0'", "from 1");
    assertRefused("window.prompts", "many", "'many'");
    assertRefused("progress.save.interval", "2", "500ms");
    assertRefused("progress.save.interval", "99999999999999d", "500ms");
    assertRefused("max.prompt.bytes", "32x", "32m");
    assertRefused("max.prompt.bytes", "9g", "bytes");
    assertRefused("topics.chunks", "a/b", "letters");
    assertRefused("sampling.temperature", "hot", "number");
    assertRefused("sampling.top.p", "0", "number");
    assertRefused("status.port", "70000", "65535");
    assertRefused("kafka.processing.guarantee", "exactly_once", "exactly_once_v2");
    assertRefused("kafka.commit.interval.ms", "soon", "whole number");
  }

  @Test
  void shouldReadAFileAndLetTheEnvironmentOverrideIt(@TempDir Path folder) throws Exception {
    Path file = folder.resolve("worker.properties");
    Files.writeString(file, "kafka.bootstrap.servers=a:1\nmax.prompt.bytes=1m\n");
    assertThat(WorkerConfig.load(file).maxPromptBytes()).isEqualTo(1024 * 1024);

    Map<String, String> values = new HashMap<>(LEAST);
    values.put("topics.tool.calls", "from-file");
    WorkerConfig config =
        WorkerConfig.of(
            values,
            Map.of(
                "MILLRACE_TOPICS_TOOL_CALLS", "from-variable",
                "MILLRACE_KAFKA_BOOTSTRAP_SERVERS", "b:2",
                "PATH", "/bin"));
    assertThat(config.topics().toolCalls()).isEqualTo("from-variable");
    assertThat(config.bootstrapServers()).isEqualTo("b:2");
  }

  @Test
  void shouldSayWhichFileCannotBeRead(@TempDir Path folder) {
    Path file = folder.resolve("none.properties");
    assertThatThrownBy(() -> WorkerConfig.load(file))
        .isInstanceOf(ConfigException.class)
        .hasMessageContaining(file.toString());
  }

  @Test
  void shouldHandTheRestToKafkaAndTheSerde() {
    WorkerConfig config =
        WorkerConfig.of(LEAST)
            .with(
                Map.of(
                    "kafka.poll.ms", "7",
                    "kafka.producer.linger.ms", "1",
                    "registry.url", "http://r",
                    "registry.basic.auth.user.info", "u:p",
                    "serde.auto.register.schemas", "false"));
    assertThat(KafkaSettings.of(config))
        .containsEntry("poll.ms", "7")
        .containsEntry("producer.linger.ms", "1")
        .containsEntry("commit.interval.ms", 200);
    assertThat(config.serdeSettings())
        .containsOnly(
            Map.entry("schema.registry.url", "http://r"),
            Map.entry("basic.auth.user.info", "u:p"),
            Map.entry("auto.register.schemas", "false"));
    assertThat(config.toString()).doesNotContain("u:p");
  }

  @Test
  void shouldNotShowCredentialsInAUrl() {
    WorkerConfig config =
        WorkerConfig.of(LEAST)
            .with(Map.of("registry.url", "https://ann:secret@r1:8081,https://ann:se/cret@r2"));
    assertThat(config.toString())
        .contains("registry.url=https://r1:8081,https://r2")
        .doesNotContain("ann");
  }

  @Test
  void shouldLetNoDefaultWithAPrefixBeatTheFile() {
    assertThat(KafkaSettings.of(with("kafka.session.timeout.ms", "2000")))
        .containsEntry("session.timeout.ms", "2000")
        .doesNotContainKey("main.consumer.session.timeout.ms")
        .containsKey("main.consumer.heartbeat.interval.ms");
    assertThat(KafkaSettings.of(with("kafka.consumer.max.poll.records", "7")))
        .doesNotContainKey("main.consumer.max.poll.records");
    assertThat(KafkaSettings.of(with("kafka.linger.ms", "0")))
        .doesNotContainKey("producer.linger.ms")
        .containsEntry("producer.batch.size", 65536);
    assertThat(KafkaSettings.of(with("kafka.producer.batch.size", "16384")))
        .containsEntry("producer.batch.size", "16384");
  }

  @Test
  void shouldLeaveSessionTimeoutsToTheBrokerUnderTheStreamsProtocol() {
    assertThat(KafkaSettings.of(WorkerConfig.of(LEAST)))
        .containsKey("main.consumer.session.timeout.ms");
    assertThat(KafkaSettings.of(with("kafka.group.protocol", "streams")))
        .doesNotContainKey("main.consumer.session.timeout.ms")
        .doesNotContainKey("num.standby.replicas");
  }

  @Test
  void shouldGiveEveryTopicRoomForTheLargestRecord() {
    WorkerConfig config = with("max.prompt.bytes", "2m");
    assertThat(Topics.required(config))
        .hasSize(6)
        .allSatisfy(
            topic ->
                assertThat(Integer.parseInt(topic.configs().get("max.message.bytes")))
                    .isGreaterThan(2 * 1024 * 1024))
        .extracting(NewTopic::numPartitions)
        .containsOnly(6);
  }

  @Test
  void shouldRefuseOneTopicForTwoPurposes() {
    assertThatThrownBy(() -> with("topics.dead.letters", "millrace.prompts"))
        .isInstanceOf(ConfigException.class)
        .hasMessageContaining("the same topic");
  }
}
