package dev.millrace.tests;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.millrace.inference.device.DeviceOptions;
import dev.millrace.inference.engine.EngineConfig;
import dev.millrace.inference.pipeline.LlmGenerator;
import dev.millrace.schemas.PromptEvent;
import dev.millrace.topology.Environment;
import dev.millrace.topology.Worker;
import dev.millrace.topology.cli.PromptsFile;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.ExtendWith;

/**
 * The shipped model on held-out prompts, through Kafka and the CPU engine: of each task a fixed
 * sample, and a floor that its share of right answers must not fall under.
 */
@ExtendWith(LocalCluster.Extension.class)
final class ShippedModelTest {
  private static final ObjectMapper JSON = new ObjectMapper();
  private static final Duration TIMEOUT = Duration.ofSeconds(300);
  private static final int SAMPLE = 60;

  /** Reading one takes as long as a hundred of the others. */
  private static final int LONG_SAMPLE = 5;

  private static final String LONG_TASK = "needle_4k";

  /** What one wrong answer may cost a small sample. */
  private static final double SLACK = 1.5;

  @Test
  void shouldHoldItsFloorsOnHeldOutPrompts(Cluster cluster) throws Exception {
    Path model = Environment.home().resolve("src/model");
    assumeTrue(
        Files.exists(model.resolve("checkpoint/config.json")), "the checkout holds no checkpoint");
    JsonNode floors = JSON.readTree(model.resolve("floors.json").toFile());
    Map<String, List<PromptsFile.Entry>> tasks = sample(model.resolve("heldout"));
    assertThat(tasks.keySet()).as("tasks with held-out prompts").isNotEmpty();
    try (Scene scene = Scene.on(cluster, Map.of("max.tokens", "200"));
        LlmGenerator generator =
            LlmGenerator.open(
                model.resolve("checkpoint"),
                EngineConfig.defaults(),
                DeviceOptions.of("cpu"),
                LlmGenerator.Options.of("shipped"));
        Worker worker = Workers.start(scene, generator)) {
      List<PromptEvent> prompts = new ArrayList<>();
      tasks.values().forEach(entries -> entries.forEach(e -> prompts.add(e.prompt())));
      scene.send(prompts);
      scene.awaitSettled(TIMEOUT);
      assertThat(scene.ledger().deadLetters()).isEmpty();
      List<String> under = new ArrayList<>();
      tasks.forEach(
          (task, entries) -> {
            assertThat(floors.has(task)).as("floors.json has a floor for %s", task).isTrue();
            long right = entries.stream().filter(e -> right(scene, e)).count();
            double floor = floors.get(task).doubleValue();
            System.out.printf("%s: %d of %d, floor %.3f%n", task, right, entries.size(), floor);
            if (right < floor * entries.size() - SLACK) {
              under.add(task + ": " + right + " of " + entries.size() + ", floor " + floor);
            }
          });
      assertThat(under).as("tasks under their floor").isEmpty();
    }
  }

  private static boolean right(Scene scene, PromptsFile.Entry entry) {
    var completion = Prompts.completion(scene, entry.prompt());
    boolean thought =
        !Boolean.TRUE.equals(entry.prompt().getReasoning()) || !completion.getReasoning().isBlank();
    return thought && entry.expected() != null && entry.expected().matches(completion);
  }

  /** The first prompts of each task, in the order of the files. */
  private static Map<String, List<PromptsFile.Entry>> sample(Path folder) throws IOException {
    StringBuilder prompts = new StringBuilder();
    Map<String, Integer> taken = new LinkedHashMap<>();
    for (String file : List.of("prompts.jsonl", "needle.jsonl")) {
      for (String line : Files.readAllLines(folder.resolve(file))) {
        ObjectNode given = (ObjectNode) JSON.readTree(line);
        String task = given.get("task").textValue();
        int most = task.equals(LONG_TASK) ? LONG_SAMPLE : SAMPLE;
        if (taken.merge(task, 1, Integer::sum) <= most) {
          prompts.append(asWrittenByHand(given)).append('\n');
        }
      }
    }
    Map<String, List<PromptsFile.Entry>> tasks = new TreeMap<>();
    Path written = Files.createTempFile("heldout", ".jsonl");
    try {
      Files.writeString(written, prompts);
      for (PromptsFile.Entry entry : PromptsFile.read(written)) {
        tasks.computeIfAbsent(entry.task(), t -> new ArrayList<>()).add(entry);
      }
    } finally {
      Files.delete(written);
    }
    return tasks;
  }

  /** The held-out files' form as the prompts file's: the switch instead of a system message. */
  private static ObjectNode asWrittenByHand(ObjectNode given) {
    ObjectNode prompt = JSON.createObjectNode();
    prompt.set("id", given.get("id"));
    prompt.set("task", given.get("task"));
    prompt.set("thinking", given.get("thinking"));
    if (!given.get("tools").isEmpty()) {
      prompt.set("tools", given.get("tools"));
    }
    ArrayNode messages = prompt.putArray("messages");
    for (JsonNode message : given.get("messages")) {
      if (!message.get("role").textValue().equals("system")) {
        messages.add(message);
      }
    }
    JsonNode expect = given.get("expect");
    if (expect.has("calls")) {
      prompt.set("expectCalls", expect.get("calls"));
    } else {
      prompt.set("expect", expect.get("content"));
    }
    return prompt;
  }
}
