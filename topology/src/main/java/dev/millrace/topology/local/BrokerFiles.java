package dev.millrace.topology.local;

import java.io.IOException;
import java.io.OutputStream;
import java.io.PrintStream;
import java.io.UncheckedIOException;
import java.io.Writer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
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
 * @param proxied where those clients come in that are told to connect elsewhere
 * @param settings the broker's complete configuration
 */
record BrokerFiles(Path data, int port, List<Integer> proxied, Properties settings) {
  private static final String CONTROLLERS = "controller.quorum.bootstrap.servers";

  /**
   * Formats {@code data} for a new cluster.
   *
   * @param overrides broker settings that replace the ones here
   * @param advertised for each of these ports another listener, whose clients are told to connect
   *     to that port: what listens there passes everything on
   */
  static BrokerFiles format(Path data, Map<String, String> overrides, List<Integer> advertised) {
    int[] ports = Ports.free(2 + advertised.size());
    Properties settings = settings(data, ports[0], ports[1]);
    overrides.forEach(settings::setProperty);
    List<Integer> proxied = Arrays.stream(ports).skip(2).boxed().toList();
    for (int i = 0; i < proxied.size(); i++) {
      String name = ",PROXIED" + i;
      append(settings, "listeners", name + "://127.0.0.1:" + proxied.get(i));
      append(settings, "advertised.listeners", name + "://127.0.0.1:" + advertised.get(i));
      append(settings, "listener.security.protocol.map", name + ":PLAINTEXT");
    }
    format(
        data,
        new Formatter()
            .setClusterId(Uuid.randomUuid().toString())
            .setNodeId(1)
            .setInitialControllers(
                DynamicVoters.parse("1@127.0.0.1:" + ports[1] + ":" + Uuid.randomUuid())));
    return new BrokerFiles(data, ports[0], proxied, settings);
  }

  /** Formats {@code data} for another broker of the same cluster, which is no controller. */
  BrokerFiles formatSecond(Path data, String clusterId) {
    int port = Ports.free(1)[0];
    Properties second = settings(data, port, 0);
    second.setProperty("process.roles", "broker");
    second.setProperty("node.id", "2");
    second.setProperty(CONTROLLERS, settings.getProperty(CONTROLLERS));
    second.setProperty("listeners", "PLAINTEXT://127.0.0.1:" + port);
    format(data, new Formatter().setClusterId(clusterId).setNodeId(2));
    return new BrokerFiles(data, port, List.of(), second);
  }

  private static void format(Path data, Formatter formatter) {
    try {
      Files.createDirectories(data);
      formatter
          .setPrintStream(new PrintStream(OutputStream.nullOutputStream()))
          .setSupportedFeatures(Feature.PRODUCTION_FEATURES)
          .addDirectory(data.toString())
          .setMetadataLogDirectory(data.toString())
          .setControllerListenerName("CONTROLLER")
          .setHasDynamicQuorum(true)
          .run();
    } catch (Exception e) {
      throw new IllegalStateException("cannot format a broker's folder in " + data, e);
    }
  }

  private static void append(Properties settings, String name, String more) {
    settings.setProperty(name, settings.getProperty(name) + more);
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
    p.setProperty(CONTROLLERS, "127.0.0.1:" + controllerPort);
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
