package dev.millrace.tests;

import dev.millrace.schemas.PromptEvent;
import dev.millrace.topology.WorkerConfig;
import dev.millrace.topology.cli.EventClient;
import dev.millrace.topology.cli.Ledger;
import dev.millrace.topology.cli.TopicsCommand;
import dev.millrace.topology.local.ForkedJvm;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.io.Writer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.UUID;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;

/**
 * One test's own topics, group and settings on a shared cluster, and the client that sends its
 * prompts and reads what comes back. The test closes it.
 */
final class Scene implements AutoCloseable {
  private final Map<String, String> settings;
  private final Path folder;
  private final EventClient client;
  private final Ledger ledger = new Ledger();
  private final List<EventClient.Outcome> outcomes = new ArrayList<>();

  private Scene(Map<String, String> settings, Path folder) {
    this.settings = settings;
    this.folder = folder;
    TopicsCommand.create(WorkerConfig.of(settings));
    this.client = new EventClient(WorkerConfig.of(settings));
  }

  /** Makes topics that no other test uses. */
  static Scene on(Cluster cluster, Map<String, String> overrides) {
    String name = "t-" + UUID.randomUUID().toString().substring(0, 8);
    Path folder = cluster.folder().resolve(name);
    Map<String, String> settings = new HashMap<>();
    settings.put("kafka.bootstrap.servers", cluster.bootstrap());
    settings.put("kafka.application.id", name);
    settings.put("kafka.state.dir", folder.resolve("state").toString());
    settings.put("registry.url", cluster.registryUrl());
    settings.put("topics.partitions", "2");
    settings.put("status.port", "-1");
    for (String topic :
        List.of("prompts", "cancels", "completions", "tool.calls", "chunks", "dead.letters")) {
      settings.put("topics." + topic, name + "." + topic);
    }
    settings.putAll(overrides);
    try {
      Files.createDirectories(folder);
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
    return new Scene(settings, folder);
  }

  WorkerConfig config() {
    return WorkerConfig.of(settings);
  }

  EventClient client() {
    return client;
  }

  Path folder() {
    return folder;
  }

  Ledger ledger() {
    return ledger;
  }

  /** Everything that came, in the order of arrival. */
  List<EventClient.Outcome> outcomes() {
    return outcomes;
  }

  /** The settings as a file that a worker in another process reads. */
  Path settingsFile() {
    Path file = folder.resolve("worker.properties");
    Properties properties = new Properties();
    properties.putAll(settings);
    try (Writer out = Files.newBufferedWriter(file)) {
      properties.store(out, null);
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
    return file;
  }

  /** Sends prompts and enters them into the ledger; returns when the broker has them. */
  void send(List<PromptEvent> prompts) {
    for (PromptEvent prompt : prompts) {
      ledger.sent(prompt.getId());
      await(client.send(prompt));
    }
  }

  /** Sends a record that need not be a prompt; the ledger expects an end of its key. */
  void sendRaw(String key, byte[] value, Map<String, byte[]> headers) {
    ledger.sent(key);
    await(client.send(key.getBytes(StandardCharsets.UTF_8), value, headers));
  }

  /** Reads until each prompt has its end; the message of the failure holds the ledger. */
  void awaitSettled(Duration timeout) {
    long deadline = System.nanoTime() + timeout.toNanos();
    while (!ledger.settled()) {
      if (System.nanoTime() > deadline) {
        throw new AssertionError(
            "not settled within "
                + timeout.toSeconds()
                + " s: "
                + ledger
                + ", open: "
                + ledger.open());
      }
      poll(Duration.ofMillis(200));
    }
  }

  /** As {@link #awaitSettled(Duration)}, but gives up as soon as the worker has ended. */
  void awaitSettled(Duration timeout, ForkedJvm worker) {
    long deadline = System.nanoTime() + timeout.toNanos();
    while (!ledger.settled()) {
      if (System.nanoTime() > deadline || !worker.isAlive()) {
        throw new AssertionError(
            (worker.isAlive() ? "not settled in time: " : "the worker has ended: ")
                + ledger
                + "\n"
                + worker.log());
      }
      poll(Duration.ofMillis(100));
    }
  }

  /** Reads on for a while, for what must not come. */
  void readFor(Duration time) {
    long deadline = System.nanoTime() + time.toNanos();
    while (System.nanoTime() < deadline) {
      poll(Duration.ofMillis(100));
    }
  }

  /** Reads once. */
  void poll(Duration timeout) {
    for (EventClient.Outcome outcome : client.poll(timeout)) {
      outcomes.add(outcome);
      ledger.enter(outcome);
    }
  }

  private static void await(Future<?> sent) {
    try {
      sent.get();
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new AssertionError("interrupted", e);
    } catch (ExecutionException e) {
      throw new AssertionError("the broker did not take a prompt", e.getCause());
    }
  }

  @Override
  public void close() {
    client.close();
  }
}
