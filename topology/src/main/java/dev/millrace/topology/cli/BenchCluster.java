package dev.millrace.topology.cli;

import dev.millrace.topology.WorkerConfig;
import dev.millrace.topology.local.ForkedBroker;
import dev.millrace.topology.local.LocalRegistry;
import dev.millrace.topology.local.TemporaryFolder;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/**
 * A broker in a process of its own and a registry, so that what is measured in this process is the
 * worker's alone. Whoever starts it closes it; its files go with it.
 */
final class BenchCluster implements AutoCloseable {
  private final TemporaryFolder folder;
  private final ForkedBroker broker;
  private final LocalRegistry registry;

  private BenchCluster(TemporaryFolder folder, ForkedBroker broker, LocalRegistry registry) {
    this.folder = folder;
    this.broker = broker;
    this.registry = registry;
  }

  static BenchCluster start() {
    TemporaryFolder folder = TemporaryFolder.create("millrace-bench-");
    try {
      ForkedBroker broker = ForkedBroker.start(folder.path().resolve("broker"), Map.of());
      try {
        return new BenchCluster(
            folder, broker, LocalRegistry.start(folder.path().resolve("registry")));
      } catch (RuntimeException e) {
        broker.close();
        throw e;
      }
    } catch (RuntimeException e) {
      folder.close();
      throw e;
    }
  }

  /** Settings of a worker with topics and a group of its own. */
  WorkerConfig settings(String name, Map<String, String> more) {
    return settings(name, broker.bootstrap(), registry.url(), folder.path().toString(), more);
  }

  static WorkerConfig settings(
      String name, String bootstrap, String registry, String folder, Map<String, String> more) {
    Map<String, String> settings = new HashMap<>();
    settings.put("kafka.bootstrap.servers", bootstrap);
    settings.put("kafka.application.id", name);
    settings.put("kafka.state.dir", folder + "/state-" + name);
    settings.put("registry.url", registry);
    settings.put("topics.partitions", "4");
    settings.put("status.port", "-1");
    for (String topic : List.of("prompts", "completions", "cancels", "chunks")) {
      settings.put("topics." + topic, name + "." + topic);
    }
    settings.putAll(more);
    return WorkerConfig.of(settings);
  }

  @Override
  public void close() {
    registry.close();
    broker.close();
    folder.close();
  }
}
