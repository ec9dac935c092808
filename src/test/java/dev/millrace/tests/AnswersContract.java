package dev.millrace.tests;

import static org.assertj.core.api.Assertions.assertThat;

import dev.millrace.schemas.ChunkEvent;
import dev.millrace.schemas.CompletionEvent;
import dev.millrace.schemas.PromptEvent;
import dev.millrace.topology.SyntheticGenerator;
import dev.millrace.topology.Worker;
import dev.millrace.topology.cli.EventClient;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** What holds on every broker: prompts go in as Avro, and each comes out answered, once. */
abstract class AnswersContract {
  private static final Duration TIMEOUT = Duration.ofSeconds(60);

  @ParameterizedTest
  @CsvSource({
    "classic, at_least_once",
    "classic, exactly_once_v2",
    "streams, at_least_once",
    "streams, exactly_once_v2"
  })
  void shouldAnswerEachPromptOnce(String protocol, String guarantee, Cluster cluster)
      throws Exception {
    Map<String, String> settings =
        Map.of("kafka.group.protocol", protocol, "kafka.processing.guarantee", guarantee);
    try (Scene scene = Scene.on(cluster, settings);
        SyntheticGenerator generator = SyntheticGenerator.atRate("synthetic", 400);
        Worker worker = Workers.start(scene, generator)) {
      List<PromptEvent> prompts = Prompts.many("p", 200, 40);
      scene.send(prompts);
      scene.awaitSettled(TIMEOUT);
      scene.readFor(Duration.ofMillis(500));
      assertThat(scene.ledger().toString())
          .isEqualTo(
              "200 sent, 200 completions, 0 dead letters, 0 lost, 0 duplicates, 0 contradictions");
      for (PromptEvent prompt : prompts) {
        assertThat(Prompts.completion(scene, prompt).getContent())
            .isEqualTo(Prompts.syntheticAnswer(prompt));
      }
    }
  }

  @Test
  void shouldStreamTheAnswerInOrderWhereItIsAskedFor(Cluster cluster) throws Exception {
    try (Scene scene = Scene.on(cluster, Map.of());
        SyntheticGenerator generator = SyntheticGenerator.atRate("synthetic", 100);
        Worker worker = Workers.start(scene, generator)) {
      PromptEvent streamed = Prompts.user("streamed", "a", 50).setStream(true).build();
      PromptEvent silent = Prompts.user("silent", "b", 50).build();
      scene.send(List.of(streamed, silent));
      scene.awaitSettled(TIMEOUT);
      scene.readFor(Duration.ofMillis(500));
      List<ChunkEvent> chunks = new ArrayList<>();
      for (EventClient.Outcome outcome : scene.outcomes()) {
        if (outcome instanceof EventClient.Outcome.Chunk(ChunkEvent chunk, var source)) {
          chunks.add(chunk);
        }
      }
      assertThat(chunks).hasSizeGreaterThan(3).allMatch(c -> c.getPromptId().equals("streamed"));
      StringBuilder text = new StringBuilder();
      for (int i = 0; i < chunks.size(); i++) {
        assertThat(chunks.get(i).getSequence()).isEqualTo(i);
        assertThat(chunks.get(i).getLast()).isEqualTo(i == chunks.size() - 1);
        text.append(chunks.get(i).getContent());
      }
      assertThat(text).hasToString(Prompts.completion(scene, streamed).getContent());
    }
  }

  @Test
  void shouldSayWhereAPromptCameFromAndCarryItsMetadata(Cluster cluster) throws Exception {
    try (Scene scene = Scene.on(cluster, Map.of());
        SyntheticGenerator generator = SyntheticGenerator.atOnce("synthetic");
        Worker worker = Workers.start(scene, generator)) {
      Map<String, String> metadata = new HashMap<>(Map.of("order", "17", "köy", "ü"));
      PromptEvent prompt = Prompts.user("with", "a", 5).setMetadata(metadata).build();
      scene.send(List.of(prompt));
      scene.awaitSettled(TIMEOUT);
      CompletionEvent completion = Prompts.completion(scene, prompt);
      assertThat(completion.getMetadata()).isEqualTo(metadata);
      assertThat(completion.getModel()).isEqualTo("synthetic");
      assertThat(completion.getUsage().getCompletion()).isEqualTo(5);
      assertThat(completion.getSource().getTopic()).isEqualTo(scene.config().topics().prompts());
      assertThat(completion.getSource().getOffset()).isZero();
    }
  }

  @Test
  void shouldAnswerAPromptThatIsSentTwiceOnce(Cluster cluster) throws Exception {
    try (Scene scene = Scene.on(cluster, Map.of());
        SyntheticGenerator generator = SyntheticGenerator.atRate("synthetic", 100);
        Worker worker = Workers.start(scene, generator)) {
      PromptEvent prompt = Prompts.user("twice", "a", 30).build();
      scene.send(List.of(prompt));
      scene.client().send(prompt).get();
      scene.awaitSettled(TIMEOUT);
      scene.client().send(prompt).get();
      scene.readFor(Duration.ofSeconds(2));
      assertThat(scene.ledger().toString())
          .isEqualTo(
              "1 sent, 1 completions, 0 dead letters, 0 lost, 0 duplicates, 0 contradictions");
    }
  }
}
