package dev.millrace.topology.local;

import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.concurrent.ExecutionException;
import kafka.server.KafkaConfig;
import kafka.server.KafkaRaftServer;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.common.TopicPartitionInfo;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.config.TopicConfig;
import org.apache.kafka.common.utils.Time;

/**
 * A topic of a {@link ForkedBroker} that nobody can write to for a while, as when its other replica
 * is gone; every other topic goes on. It has a second replica on a broker that runs only while the
 * topic is made, so that {@code min.insync.replicas} decides. Whoever makes it closes it.
 */
public final class RefusedTopic implements AutoCloseable {
  private static final Duration PATIENCE = Duration.ofSeconds(60);

  private final Admin admin;
  private final String topic;

  private RefusedTopic(Admin admin, String topic) {
    this.admin = admin;
    this.topic = topic;
  }

  /**
   * Makes the topic, which must not be there yet.
   *
   * @param data takes the second broker's files
   */
  public static RefusedTopic make(ForkedBroker broker, Path data, String topic, int partitions) {
    Admin admin = Admin.create(Map.of("bootstrap.servers", broker.bootstrap()));
    try {
      String cluster = admin.describeCluster().clusterId().get();
      BrokerFiles second = broker.second(data, cluster);
      KafkaRaftServer server =
          new KafkaRaftServer(KafkaConfig.fromProps(second.settings(), false), Time.SYSTEM);
      server.startup();
      try {
        Map<Integer, List<Integer>> replicas = new HashMap<>();
        for (int i = 0; i < partitions; i++) {
          replicas.put(i, List.of(1, 2));
        }
        admin
            .createTopics(
                List.of(
                    new NewTopic(topic, replicas)
                        .configs(Map.of(TopicConfig.MIN_IN_SYNC_REPLICAS_CONFIG, "1"))))
            .all()
            .get();
      } finally {
        server.shutdown();
        server.awaitShutdown();
      }
      RefusedTopic made = new RefusedTopic(admin, topic);
      made.awaitAlone();
      return made;
    } catch (ExecutionException | InterruptedException e) {
      admin.close();
      throw new IllegalStateException("cannot make the topic " + topic, e);
    }
  }

  /** Waits until the second broker counts no more. */
  private void awaitAlone() throws InterruptedException, ExecutionException {
    long deadline = System.nanoTime() + PATIENCE.toNanos();
    List<TopicPartitionInfo> shared = new ArrayList<>();
    do {
      Thread.sleep(50);
      shared.clear();
      shared.addAll(
          Objects.requireNonNull(
                  admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic))
              .partitions());
      shared.removeIf(p -> p.isr().size() == 1 && p.leader() != null && p.leader().id() == 1);
      if (System.nanoTime() > deadline) {
        throw new IllegalStateException("the second broker stays in sync: " + shared);
      }
    } while (!shared.isEmpty());
  }

  /** From now on each write fails for want of replicas, and may be tried again. */
  public void refuse() {
    replicasNeeded(2);
  }

  /** The end of {@link #refuse}. */
  public void accept() {
    replicasNeeded(1);
  }

  private void replicasNeeded(int count) {
    try {
      admin
          .incrementalAlterConfigs(
              Map.of(
                  new ConfigResource(ConfigResource.Type.TOPIC, topic),
                  List.of(
                      new AlterConfigOp(
                          new ConfigEntry(
                              TopicConfig.MIN_IN_SYNC_REPLICAS_CONFIG, Integer.toString(count)),
                          AlterConfigOp.OpType.SET))))
          .all()
          .get();
    } catch (ExecutionException | InterruptedException e) {
      throw new IllegalStateException("cannot change the topic " + topic, e);
    }
  }

  @Override
  public void close() {
    admin.close(Duration.ofSeconds(2));
  }
}
