package dev.millrace.topology.local;

import dev.millrace.topology.Environment;
import java.io.File;
import java.io.IOException;
import java.net.URI;
import java.net.URISyntaxException;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * A real schema registry, Apicurio, in a process of its own on loopback. The build unpacks it to
 * {@code topology/target/registry}. Schemas lie in a database file and survive {@link #stop()} and
 * {@link #kill9()}. Whoever starts it closes it. Not thread-safe.
 */
public final class LocalRegistry implements AutoCloseable {
  private static final Duration START_TIMEOUT = Duration.ofSeconds(90);
  private static final String ENTRY = "io.quarkus.bootstrap.runner.QuarkusEntryPoint";

  private final Path distribution;
  private final Path data;
  private final int port;
  private final int managementPort;
  private @Nullable ForkedJvm process;

  private LocalRegistry(Path distribution, Path data, int port, int managementPort) {
    this.distribution = distribution;
    this.data = data;
    this.port = port;
    this.managementPort = managementPort;
  }

  /** Starts a registry on a free port and waits until it answers; {@code data} takes its files. */
  public static LocalRegistry start(Path data) {
    LocalRegistry registry = stopped(data);
    registry.start();
    return registry;
  }

  /** A registry that has its address but does not run before {@link #start()}. */
  public static LocalRegistry stopped(Path data) {
    Path distribution = Environment.home().resolve("topology/target/registry");
    if (!Files.isRegularFile(distribution.resolve("quarkus-run.jar"))) {
      if (Environment.bundled()) {
        throw new IllegalStateException(
            "a bundle has no schema registry of its own: run this where the project is built");
      }
      throw new IllegalStateException(
          "no registry in "
              + distribution
              + ": the build unpacks it there, run mvn -B process-classes");
    }
    int[] ports = Ports.free(2);
    return new LocalRegistry(distribution, data.toAbsolutePath(), ports[0], ports[1]);
  }

  /** Starts it, or starts it again: same port, same schemas, same ids. */
  public void start() {
    if (process != null && process.isAlive()) {
      throw new IllegalStateException("the registry runs already");
    }
    try {
      Files.createDirectories(data);
    } catch (IOException e) {
      throw new IllegalStateException("cannot make " + data, e);
    }
    ForkedJvm starting =
        ForkedJvm.start(
            new ForkedJvm.Spec(
                "the schema registry",
                List.of(
                    "-Xmx128m",
                    "-XX:+UseSerialGC",
                    "-XX:TieredStopAtLevel=1",
                    "-Dquarkus.http.host=127.0.0.1",
                    "-Dquarkus.http.port=" + port,
                    // Without a host the management port listens on every interface.
                    "-Dquarkus.management.host=127.0.0.1",
                    "-Dquarkus.management.port=" + managementPort,
                    "-Dapicurio.rules.global.compatibility=FULL_TRANSITIVE",
                    "-Dapicurio.datasource.url=jdbc:h2:file:"
                        + data.resolve("registry")
                        + ";WRITE_DELAY=0"),
                distribution.resolve("quarkus-run.jar") + File.pathSeparator + ownClasses(),
                ENTRY,
                List.of(),
                data.resolve("registry.log"),
                data));
    process = starting;
    try (HttpClient http = HttpClient.newHttpClient()) {
      HttpRequest subjects =
          HttpRequest.newBuilder(URI.create(url() + "/subjects"))
              .timeout(Duration.ofSeconds(5))
              .build();
      starting.awaitReady(
          START_TIMEOUT,
          () -> http.send(subjects, HttpResponse.BodyHandlers.discarding()).statusCode() == 200);
    }
  }

  /** Ends it in an orderly way. Nothing happens if it does not run. */
  public void stop() {
    if (process != null) {
      process.close();
      process = null;
    }
  }

  /** SIGKILL. */
  public void kill9() {
    if (process != null) {
      process.kill9();
    }
  }

  /** The address of Confluent's interface, for {@code schema.registry.url}. */
  public String url() {
    return "http://127.0.0.1:" + port + "/apis/ccompat/v7";
  }

  @Override
  public void close() {
    stop();
  }

  /** Where {@link ParentWatch} lies: it must be on the registry's class path too. */
  private static Path ownClasses() {
    try {
      return Path.of(ParentWatch.class.getProtectionDomain().getCodeSource().getLocation().toURI());
    } catch (URISyntaxException e) {
      throw new IllegalStateException(e);
    }
  }
}
