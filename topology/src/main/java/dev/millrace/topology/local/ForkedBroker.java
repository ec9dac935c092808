package dev.millrace.topology.local;

import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.Socket;
import java.nio.file.Path;
import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.ExecutionException;
import org.apache.kafka.clients.admin.Admin;
import org.jspecify.annotations.Nullable;

/**
 * A real Kafka broker in a process of its own, which can be killed. Whoever starts it closes it;
 * the data folder stays. Not thread-safe.
 */
public final class ForkedBroker implements AutoCloseable {
  private static final Duration START_TIMEOUT = Duration.ofSeconds(180);

  private final BrokerFiles files;
  private @Nullable ForkedJvm process;

  private ForkedBroker(BrokerFiles files) {
    this.files = files;
  }

  /**
   * Formats {@code data}, which must be empty or missing, and starts a broker on a free port.
   *
   * @param overrides broker settings that replace the ones of {@link BrokerFiles}
   */
  public static ForkedBroker start(Path data, Map<String, String> overrides) {
    return start(data, overrides, List.of());
  }

  /**
   * As {@link #start(Path, Map)}, with proxies before the broker.
   *
   * @param proxies each gets a listener of its own that it passes everything on to; its clients
   *     find the broker through it alone
   */
  public static ForkedBroker start(
      Path data, Map<String, String> overrides, List<TcpProxy> proxies) {
    Map<String, String> settings = new HashMap<>();
    // Started again, it leads its partitions as before until its last session is over, then no
    // more, then again. A coordinator that is loaded for the first time meanwhile is taken for the
    // second one half way (CoordinatorRuntime of Kafka 4.3.1): groups go back to old offsets and
    // nobody can commit. So the session keeps its nine seconds, and the log to load stays short.
    settings.put("offsets.topic.segment.bytes", "1048576");
    settings.putAll(overrides);
    ForkedBroker broker =
        new ForkedBroker(
            BrokerFiles.format(data, settings, proxies.stream().map(TcpProxy::port).toList()));
    for (int i = 0; i < proxies.size(); i++) {
      proxies.get(i).to(broker.files.proxied().get(i));
    }
    broker.start();
    return broker;
  }

  /** Starts it again after {@link #kill9()}: same port, same data; waits until it answers. */
  public void start() {
    if (process != null && process.isAlive()) {
      throw new IllegalStateException("the broker runs already");
    }
    Path settings = files.writeSettings();
    ForkedJvm starting =
        ForkedJvm.start(
            new ForkedJvm.Spec(
                "the broker",
                List.of("-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"),
                null,
                "kafka.Kafka",
                List.of(settings.toString()),
                settings.resolveSibling(files.data().getFileName() + ".log"),
                null));
    process = starting;
    starting.awaitReady(START_TIMEOUT, this::answers);
  }

  /** SIGKILL: nothing is flushed, nothing is said to anybody. */
  public void kill9() {
    if (process != null) {
      process.kill9();
    }
  }

  /** Settings and a formatted folder for a second broker of this cluster. */
  BrokerFiles second(Path data, String clusterId) {
    return files.formatSecond(data, clusterId);
  }

  /** Where clients connect, for {@code bootstrap.servers}. */
  public String bootstrap() {
    return files.bootstrap();
  }

  @Override
  public void close() {
    if (process != null) {
      process.close();
    }
  }

  private boolean answers() throws IOException, InterruptedException {
    // The port first: an admin client logs a warning for each refused connection.
    try (Socket socket = new Socket()) {
      socket.connect(new InetSocketAddress("127.0.0.1", files.port()), 500);
    }
    Properties p = new Properties();
    p.setProperty("bootstrap.servers", bootstrap());
    p.setProperty("default.api.timeout.ms", "2000");
    p.setProperty("request.timeout.ms", "1000");
    try (Admin admin = Admin.create(p)) {
      return !admin.describeCluster().nodes().get().isEmpty();
    } catch (ExecutionException e) {
      return false;
    }
  }
}
