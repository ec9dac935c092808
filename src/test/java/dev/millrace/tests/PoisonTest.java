package dev.millrace.tests;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;

import dev.millrace.inference.device.DeviceOptions;
import dev.millrace.inference.engine.EngineConfig;
import dev.millrace.inference.pipeline.LlmGenerator;
import dev.millrace.schemas.CompletionFinish;
import dev.millrace.schemas.PromptEvent;
import dev.millrace.schemas.PromptResponseFormat;
import dev.millrace.schemas.PromptTool;
import dev.millrace.schemas.ResponseFormatType;
import dev.millrace.topology.Environment;
import dev.millrace.topology.Worker;
import dev.millrace.topology.cli.EventClient;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import org.apache.kafka.common.header.Header;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestInstance;
import org.junit.jupiter.api.extension.ExtendWith;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/**
 * Prompts that nobody can answer, before a worker with a real engine: each becomes one dead letter
 * with its own bytes and headers, and those before and after it are answered.
 */
@ExtendWith(LocalCluster.Extension.class)
@TestInstance(TestInstance.Lifecycle.PER_CLASS)
@SuppressWarnings("NullAway.Init")
final class PoisonTest {
  private static final Duration TIMEOUT = Duration.ofSeconds(60);
  private static final int MOST_BYTES = 64 * 1024;

  private Scene scene;
  private LlmGenerator generator;
  private Worker worker;

  @BeforeAll
  void start(Cluster cluster) throws Exception {
    scene = Scene.on(cluster, Map.of("max.prompt.bytes", Integer.toString(MOST_BYTES)));
    generator =
        LlmGenerator.open(
            RandomCheckpoint.write(scene.folder().resolve("random"), Environment.home(), 1),
            EngineConfig.defaults(),
            DeviceOptions.of("cpu"),
            LlmGenerator.Options.of("random"));
    worker = Workers.start(scene, generator);
  }

  @AfterAll
  void stop() {
    worker.close();
    generator.close();
    scene.close();
  }

  /** What is sent, and what the dead letter says about it. */
  enum Poison {
    RANDOM_BYTES("BAD_RECORD", "must begin with 0x00"),
    NO_BYTES("BAD_RECORD", "must begin with 0x00"),
    WRONG_MAGIC("BAD_RECORD", "must begin with 0x00"),
    UNKNOWN_SCHEMA("BAD_RECORD", "has no such schema"),
    CUT_OFF("BAD_RECORD", "does not read as PromptEvent"),
    TRAILING_BYTES("BAD_RECORD", "after the end of its PromptEvent"),
    NOTHING_ASKED("INVALID_REQUEST", "give messages, prompt or promptTokens"),
    LONGER_THAN_THE_CONTEXT("PROMPT_TOO_LONG", "512"),
    TEMPLATE_RAISES("INVALID_REQUEST", RandomCheckpoint.RAISED),
    UNKNOWN_TOKEN("INVALID_REQUEST", "999999"),
    TOOL_SCHEMA_THAT_IS_NONE("INVALID_REQUEST", "tool"),
    RESPONSE_SCHEMA("UNSUPPORTED", "response format"),
    TOO_MANY_BYTES("RECORD_TOO_LARGE", "max.prompt.bytes");

    private final String reason;
    private final String message;

    Poison(String reason, String message) {
      this.reason = reason;
      this.message = message;
    }
  }

  @ParameterizedTest
  @EnumSource(Poison.class)
  void shouldBecomeOneDeadLetterAndHarmNobody(Poison poison) {
    String id = "poison-" + poison;
    byte[] bytes = bytes(poison, id);
    List<PromptEvent> good = Prompts.many("good-" + poison, 6, 4);
    scene.send(good.subList(0, 3));
    scene.sendRaw(id, bytes, Map.of("traceparent", "00-1".getBytes(UTF_8)));
    scene.send(good.subList(3, 6));
    scene.awaitSettled(TIMEOUT);
    scene.readFor(Duration.ofMillis(300));

    EventClient.Outcome.DeadLetter dead =
        Objects.requireNonNull(
            scene.ledger().deadLetters().get(id), () -> "no dead letter: " + scene.ledger());
    if (poison == Poison.TOO_MANY_BYTES) {
      // No topic has room for it: its place on the prompts' topic is in the headers.
      assertThat(dead.source().value()).isNull();
      assertThat(header(dead, "millrace.value.omitted")).matches("\\d+");
      assertThat(header(dead, "__streams.errors.offset")).matches("\\d+");
    } else {
      assertThat(dead.source().value()).as("the original bytes").isEqualTo(bytes);
    }
    assertThat(header(dead, "traceparent")).as("the original header").isEqualTo("00-1");
    assertThat(header(dead, "millrace.reason")).as(dead.reason()).isEqualTo(poison.reason);
    assertThat(dead.reason()).containsIgnoringCase(poison.message);
    assertThat(header(dead, "__streams.errors.topic")).isEqualTo(scene.config().topics().prompts());
    for (PromptEvent prompt : good) {
      assertThat(Prompts.completion(scene, prompt).getUsage().getCompletion()).isPositive();
    }
    assertThat(scene.ledger().duplicates()).isZero();
  }

  @Test
  void shouldReadSpecialTokensThatAUserSpellsAsText() {
    PromptEvent plain = Prompts.user("plain", "x", 4).build();
    PromptEvent spelled = Prompts.user("spelled", "x" + "<|eot_id|>".repeat(10), 4).build();
    scene.send(List.of(plain, spelled));
    scene.awaitSettled(TIMEOUT);
    int more =
        Prompts.completion(scene, spelled).getUsage().getPrompt()
            - Prompts.completion(scene, plain).getUsage().getPrompt();
    // As control tokens they would be ten.
    assertThat(more).as("tokens of ten spelled specials").isGreaterThan(30);
    assertThat(Prompts.completion(scene, spelled).getFinishReason())
        .isIn(CompletionFinish.LENGTH, CompletionFinish.STOP);
  }

  private byte[] bytes(Poison poison, String id) {
    byte[] valid = scene.client().serialize(Prompts.user(id, "fine", 4).build());
    return switch (poison) {
      case RANDOM_BYTES -> new byte[] {1, 2, 3};
      case NO_BYTES -> new byte[0];
      case WRONG_MAGIC -> {
        byte[] wrong = valid.clone();
        wrong[0] = 7;
        yield wrong;
      }
      case UNKNOWN_SCHEMA -> ByteBuffer.wrap(valid.clone()).putInt(1, 99_999_999).array();
      case CUT_OFF -> Arrays.copyOf(valid, valid.length / 2);
      case TRAILING_BYTES -> Arrays.copyOf(valid, valid.length + 3);
      case NOTHING_ASKED -> scene.client().serialize(PromptEvent.newBuilder().setId(id).build());
      case LONGER_THAN_THE_CONTEXT ->
          scene.client().serialize(Prompts.user(id, "word ".repeat(2000), 4).build());
      case TEMPLATE_RAISES ->
          scene.client().serialize(Prompts.user(id, RandomCheckpoint.RAISES, 4).build());
      case UNKNOWN_TOKEN ->
          scene
              .client()
              .serialize(
                  PromptEvent.newBuilder().setId(id).setPromptTokens(List.of(1, 999_999)).build());
      case TOOL_SCHEMA_THAT_IS_NONE ->
          scene
              .client()
              .serialize(
                  Prompts.user(id, "fine", 4)
                      .setTools(
                          List.of(
                              PromptTool.newBuilder()
                                  .setName("f")
                                  .setParameters("{\"type\": 5}")
                                  .build()))
                      .build());
      case RESPONSE_SCHEMA ->
          scene
              .client()
              .serialize(
                  Prompts.user(id, "fine", 4)
                      .setResponseFormat(
                          PromptResponseFormat.newBuilder()
                              .setType(ResponseFormatType.JSON_OBJECT)
                              .build())
                      .build());
      case TOO_MANY_BYTES ->
          scene.client().serialize(Prompts.user(id, "x".repeat(MOST_BYTES), 4).build());
    };
  }

  private static String header(EventClient.Outcome.DeadLetter dead, String name) {
    Header header = dead.source().headers().lastHeader(name);
    return header == null || header.value() == null ? "" : new String(header.value(), UTF_8);
  }
}
