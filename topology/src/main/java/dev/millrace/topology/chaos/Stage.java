package dev.millrace.topology.chaos;

import dev.millrace.topology.WorkerConfig;
import dev.millrace.topology.cli.TopicsCommand;
import dev.millrace.topology.local.ForkedBroker;
import dev.millrace.topology.local.LocalRegistry;
import dev.millrace.topology.local.RefusedTopic;
import dev.millrace.topology.local.TcpProxy;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;

/**
 * The processes of a run: broker, registry, and places for workers, each with its own proxy before
 * the broker. Whoever opens it closes it, which ends all of them; the folder is the caller's.
 */
final class Stage implements AutoCloseable {
  /** Workers that only join and leave. */
  static final int EXTRAS = 3;

  final ForkedBroker broker;
  final LocalRegistry registry;
  final RegistryFront front;
  final WorkerConfig config;
  final List<WorkerPlace> places;
  final RefusedTopic completions;

  private Stage(
      ForkedBroker broker,
      LocalRegistry registry,
      RegistryFront front,
      WorkerConfig config,
      List<WorkerPlace> places,
      RefusedTopic completions) {
    this.broker = broker;
    this.registry = registry;
    this.front = front;
    this.config = config;
    this.places = places;
    this.completions = completions;
  }

  /** Starts broker and registry and makes the topics; starts no worker. */
  static Stage open(ChaosOptions options, Path folder) {
    List<WorkerPlace> places = new ArrayList<>();
    for (int i = 0; i < options.workers() + EXTRAS; i++) {
      places.add(
          new WorkerPlace(
              i, folder.resolve("worker-" + i), TcpProxy.open(), options.tokensPerSecond()));
    }
    CompletableFuture<LocalRegistry> registry =
        CompletableFuture.supplyAsync(() -> LocalRegistry.start(folder.resolve("registry")));
    ForkedBroker broker =
        ForkedBroker.start(
            folder.resolve("broker"),
            options.broker(),
            places.stream().map(place -> place.proxy).toList());
    RegistryFront front = RegistryFront.open(registry.join().url());
    Map<String, String> settings = settings(options);
    settings.putAll(options.worker());
    settings.put("registry.url", front.url());
    places.forEach(place -> place.configure(settings));
    settings.put("kafka.bootstrap.servers", broker.bootstrap());
    settings.put("registry.url", registry.join().url());
    WorkerConfig config = WorkerConfig.of(settings);
    RefusedTopic completions =
        RefusedTopic.make(
            broker, folder.resolve("second"), config.topics().completions(), config.partitions());
    TopicsCommand.create(config);
    return new Stage(broker, registry.join(), front, config, places, completions);
  }

  private static Map<String, String> settings(ChaosOptions options) {
    Map<String, String> settings = new HashMap<>();
    settings.put("kafka.application.id", "chaos");
    settings.put("kafka.processing.guarantee", options.guarantee());
    settings.put("kafka.group.protocol", options.protocol());
    // Results wait a little longer than usual, and many workers take little of a machine.
    settings.put("kafka.poll.ms", "20");
    settings.put("topics.partitions", "4");
    settings.put("max.prompt.bytes", Integer.toString(Load.MAX_PROMPT_BYTES));
    settings.put("status.port", "-1");
    return settings;
  }

  @Override
  public void close() {
    places.forEach(WorkerPlace::close);
    completions.close();
    front.close();
    registry.close();
    broker.kill9();
    broker.close();
  }
}
