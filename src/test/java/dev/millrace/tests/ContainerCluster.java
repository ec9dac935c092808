package dev.millrace.tests;

import dev.millrace.topology.local.LocalRegistry;
import dev.millrace.topology.local.TemporaryFolder;
import java.nio.file.Path;
import org.testcontainers.DockerClientFactory;
import org.testcontainers.kafka.KafkaContainer;

/** A broker in a container, as users run it, and the registry of this machine. */
final class ContainerCluster implements Cluster {
  private static final String IMAGE = "apache/kafka-native:4.1.0";

  private final KafkaContainer kafka;
  private final LocalRegistry registry;
  private final TemporaryFolder folder;

  private ContainerCluster(KafkaContainer kafka, LocalRegistry registry, TemporaryFolder folder) {
    this.kafka = kafka;
    this.registry = registry;
    this.folder = folder;
  }

  /** The condition for tests with this cluster. */
  static boolean dockerIsThere() {
    return DockerClientFactory.instance().isDockerAvailable();
  }

  private static ContainerCluster start() {
    TemporaryFolder folder = TemporaryFolder.create("millrace-container-");
    KafkaContainer kafka =
        new KafkaContainer(IMAGE)
            .withEnv("KAFKA_AUTO_CREATE_TOPICS_ENABLE", "false")
            .withEnv("KAFKA_GROUP_COORDINATOR_REBALANCE_PROTOCOLS", "classic,consumer,streams")
            .withEnv("KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR", "1")
            .withEnv("KAFKA_TRANSACTION_STATE_LOG_MIN_ISR", "1");
    kafka.start();
    return new ContainerCluster(
        kafka, LocalRegistry.start(folder.path().resolve("registry")), folder);
  }

  @Override
  public String bootstrap() {
    return kafka.getBootstrapServers();
  }

  @Override
  public LocalRegistry registry() {
    return registry;
  }

  @Override
  public Path folder() {
    return folder.path();
  }

  @Override
  public void close() {
    registry.close();
    kafka.stop();
    folder.close();
  }

  /** Gives it to tests. */
  static final class Extension extends ClusterExtension<ContainerCluster> {
    Extension() {
      super(ContainerCluster.class, ContainerCluster::start);
    }
  }
}
