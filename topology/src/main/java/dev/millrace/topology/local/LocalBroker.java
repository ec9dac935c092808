package dev.millrace.topology.local;

import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import kafka.server.KafkaConfig;
import kafka.server.KafkaRaftServer;
import org.apache.kafka.common.utils.Time;
import org.jspecify.annotations.Nullable;

/**
 * A real Kafka broker inside this process, on loopback. Whoever starts it closes it; the data
 * folder stays. Not thread-safe.
 */
public final class LocalBroker implements AutoCloseable {
  private final BrokerFiles files;
  private @Nullable KafkaRaftServer server;

  private LocalBroker(BrokerFiles files) {
    this.files = files;
  }

  /** Formats {@code data}, which must be empty or missing, and starts a broker on a free port. */
  public static LocalBroker start(Path data) {
    return start(data, Map.of());
  }

  /**
   * As {@link #start(Path)}.
   *
   * @param overrides broker settings that replace the ones of {@link BrokerFiles}
   */
  public static LocalBroker start(Path data, Map<String, String> overrides) {
    LocalBroker broker = new LocalBroker(BrokerFiles.format(data, overrides, List.of()));
    broker.start();
    return broker;
  }

  /** Starts it again after {@link #stop()}: same port, same data. */
  public void start() {
    if (server != null) {
      throw new IllegalStateException("the broker runs already");
    }
    KafkaRaftServer starting =
        new KafkaRaftServer(KafkaConfig.fromProps(files.settings(), false), Time.SYSTEM);
    starting.startup();
    server = starting;
  }

  /** Ends it in an orderly way. Nothing happens if it does not run. */
  public void stop() {
    if (server != null) {
      server.shutdown();
      server.awaitShutdown();
      server = null;
    }
  }

  /** Where clients connect, for {@code bootstrap.servers}. */
  public String bootstrap() {
    return files.bootstrap();
  }

  @Override
  public void close() {
    stop();
  }
}
