package dev.millrace.tests;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.millrace.schemas.PromptEvent;
import dev.millrace.topology.SyntheticGenerator;
import dev.millrace.topology.Worker;
import dev.millrace.topology.local.LocalRegistry;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.ExtendWith;
import org.junit.jupiter.api.io.TempDir;

/** A registry that is down holds prompts up and loses none: no prompt is to blame for it. */
@ExtendWith(LocalCluster.Extension.class)
final class RegistryOutageTest {
  private static final Duration TIMEOUT = Duration.ofSeconds(60);
  private static final Duration OUTAGE = Duration.ofSeconds(5);
  private static final int PROMPTS = 10;

  @TempDir Path temp;

  @Test
  void shouldStallAndRecoverWhenTheRegistryIsDownAtStart(Cluster cluster) throws Exception {
    try (LocalRegistry registry = LocalRegistry.start(temp);
        Scene scene = Scene.on(cluster, Map.of("registry.url", registry.url()));
        SyntheticGenerator generator = SyntheticGenerator.atOnce("synthetic")) {
      scene.send(Prompts.many("before", PROMPTS, 5));
      registry.stop();
      try (Worker worker = new Worker(scene.config(), generator)) {
        worker.start();
        scene.readFor(OUTAGE);
        assertThat(scene.ledger().open()).as("nothing can be answered yet").hasSize(PROMPTS);
        registry.start();
        scene.awaitSettled(TIMEOUT);
        assertAllAnswered(scene, PROMPTS);
      }
    }
  }

  @Test
  void shouldStallAndRecoverWhenTheRegistryGoesDownLater(Cluster cluster) throws Exception {
    try (LocalRegistry registry = LocalRegistry.start(temp);
        Scene scene = Scene.on(cluster, Map.of("registry.url", registry.url()));
        SyntheticGenerator generator = SyntheticGenerator.atOnce("synthetic");
        Worker worker = Workers.start(scene, generator)) {
      scene.send(Prompts.many("before", PROMPTS, 5));
      scene.awaitSettled(TIMEOUT);
      // A schema that the worker has not seen: it has to ask for it.
      int unseen = registerOneMoreField(registry, scene.config().topics().prompts() + "-value");
      registry.kill9();

      List<PromptEvent> known = Prompts.many("known", PROMPTS, 5);
      scene.send(known);
      scene.awaitSettled(TIMEOUT);
      for (PromptEvent prompt : Prompts.many("unseen", PROMPTS, 5)) {
        byte[] bytes = scene.client().serialize(prompt);
        // The field more is an empty text at the end: one zero.
        byte[] written = Arrays.copyOf(bytes, bytes.length + 1);
        scene.sendRaw(prompt.getId(), ByteBuffer.wrap(written).putInt(1, unseen).array(), Map.of());
      }
      scene.readFor(OUTAGE);
      assertThat(scene.ledger().open()).as("held up").hasSize(PROMPTS);
      registry.start();
      scene.awaitSettled(TIMEOUT);
      assertAllAnswered(scene, 3 * PROMPTS);
    }
  }

  private static void assertAllAnswered(Scene scene, int prompts) {
    scene.readFor(Duration.ofMillis(300));
    assertThat(scene.ledger().toString())
        .startsWith(
            prompts + " sent, " + prompts + " completions, 0 dead letters, 0 lost, 0 duplicates");
  }

  /** A later version of the events, as other programs may write it already. */
  private static int registerOneMoreField(LocalRegistry registry, String subject) throws Exception {
    ObjectNode schema =
        (ObjectNode) new ObjectMapper().readTree(PromptEvent.getClassSchema().toString());
    schema
        .withArray("fields")
        .addObject()
        .put("name", "oneMore")
        .put("type", "string")
        .put("default", "");
    String text = schema.toString();
    String body = "{\"schema\": " + new ObjectMapper().writeValueAsString(text) + "}";
    try (HttpClient http = HttpClient.newHttpClient()) {
      HttpRequest request =
          HttpRequest.newBuilder(URI.create(registry.url() + "/subjects/" + subject + "/versions"))
              .header("Content-Type", "application/vnd.schemaregistry.v1+json")
              .POST(HttpRequest.BodyPublishers.ofString(body))
              .build();
      String answer = http.send(request, HttpResponse.BodyHandlers.ofString()).body();
      assertThat(answer).contains("\"id\"");
      return Integer.parseInt(answer.replaceAll(".*\"id\":\\s*(\\d+).*", "$1"));
    }
  }
}
