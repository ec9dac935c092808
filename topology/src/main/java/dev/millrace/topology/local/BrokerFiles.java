package dev.millrace.topology.local;

import java.io.IOException;
import java.io.OutputStream;
import java.io.PrintStream;
import java.io.UncheckedIOException;
import java.io.Writer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.metadata.storage.Formatter;
import org.apache.kafka.raft.DynamicVoters;
import org.apache.kafka.server.common.Feature;

/**
 * A data folder and the settings of a single broker that is its own controller, on loopback. Both
 * kinds of local broker start from it.
 *
 * @param data the formatted folder
 * @param port where clients connect
 * @param settings the broker's complete configuration
 */
record BrokerFiles(Path data, int port, Properties settings) {

  /**
   * Formats {@code data} for a new cluster.
   *
   * @param overrides broker settings that replace the ones here
   */
  static BrokerFiles format(Path data, Map<String, String> overrides) {
    int[] ports = Ports.free(2);
    Properties settings = settings(data, ports[0], ports[1]);
    overrides.forEach(settings::setProperty);
    try {
      Files.createDirectories(data);
      new Formatter()
          .setPrintStream(new PrintStream(OutputStream.nullOutputStream()))
          .setSupportedFeatures(Feature.PRODUCTION_FEATURES)
          .setClusterId(Uuid.randomUuid().toString())
          .setNodeId(1)
          .addDirectory(data.toString())
          .setMetadataLogDirectory(data.toString())
          .setControllerListenerName("CONTROLLER")
          .setHasDynamicQuorum(true)
          .setInitialControllers(
              DynamicVoters.parse("1@127.0.0.1:" + ports[1] + ":" + Uuid.randomUuid()))
          .run();
    } catch (Exception e) {
      throw new IllegalStateException("cannot format a broker's folder in " + data, e);
    }
    return new BrokerFiles(data, ports[0], settings);
  }

  String bootstrap() {
    return "127.0.0.1:" + port;
  }

  /** Writes the settings where {@code kafka.Kafka} can read them. */
  Path writeSettings() {
    Path file = data.resolveSibling(data.getFileName() + ".properties");
    try (Writer out = Files.newBufferedWriter(file)) {
      settings.store(out, null);
    } catch (IOException e) {
      throw new UncheckedIOException("cannot write " + file, e);
    }
    return file;
  }

  private static Properties settings(Path data, int port, int controllerPort) {
    Properties p = new Properties();
    p.setProperty("process.roles", "broker,controller");
    p.setProperty("node.id", "1");
    p.setProperty("controller.quorum.bootstrap.servers", "127.0.0.1:" + controllerPort);
    p.setProperty("controller.listener.names", "CONTROLLER");
    p.setProperty(
        "listeners", "PLAINTEXT://127.0.0.1:" + port + ",CONTROLLER://127.0.0.1:" + controllerPort);
    p.setProperty("advertised.listeners", "PLAINTEXT://127.0.0.1:" + port);
    p.setProperty("listener.security.protocol.map", "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT");
    p.setProperty("inter.broker.listener.name", "PLAINTEXT");
    p.setProperty("log.dirs", data.toString());
    p.setProperty("auto.create.topics.enable", "false");
    p.setProperty("num.partitions", "1");
    // There is one broker, and the defaults ask for three.
    p.setProperty("default.replication.factor", "1");
    p.setProperty("offsets.topic.replication.factor", "1");
    p.setProperty("offsets.topic.num.partitions", "4");
    p.setProperty("transaction.state.log.replication.factor", "1");
    p.setProperty("transaction.state.log.min.isr", "1");
    p.setProperty("transaction.state.log.num.partitions", "4");
    p.setProperty("share.coordinator.state.topic.replication.factor", "1");
    p.setProperty("share.coordinator.state.topic.min.isr", "1");
    p.setProperty("share.coordinator.state.topic.num.partitions", "1");
    // Groups start and move at once; a stock broker waits for members that never come.
    p.setProperty("group.initial.rebalance.delay.ms", "0");
    p.setProperty("group.min.session.timeout.ms", "1000");
    p.setProperty("group.streams.min.session.timeout.ms", "1000");
    p.setProperty("group.streams.session.timeout.ms", "6000");
    p.setProperty("group.streams.min.heartbeat.interval.ms", "200");
    p.setProperty("group.streams.heartbeat.interval.ms", "1000");
    p.setProperty("group.streams.initial.rebalance.delay.ms", "0");
    // The cleaner's default buffer is 128 MB, more than the heap of a forked broker.
    p.setProperty("log.cleaner.dedupe.buffer.size", "2097152");
    p.setProperty("controlled.shutdown.enable", "false");
    p.setProperty("num.network.threads", "2");
    p.setProperty("num.io.threads", "4");
    return p;
  }
}
