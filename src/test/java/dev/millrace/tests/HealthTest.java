package dev.millrace.tests;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.millrace.inference.api.GenerateEvent;
import dev.millrace.inference.api.GenerateRequest;
import dev.millrace.inference.api.Generator;
import dev.millrace.inference.api.SamplingParams;
import dev.millrace.inference.device.DeviceOptions;
import dev.millrace.inference.engine.EngineConfig;
import dev.millrace.inference.pipeline.LlmGenerator;
import dev.millrace.topology.Environment;
import dev.millrace.topology.Worker;
import dev.millrace.topology.local.ForkedJvm;
import dev.millrace.topology.local.LocalBroker;
import dev.millrace.topology.local.LocalRegistry;
import dev.millrace.topology.local.Ports;
import java.io.IOException;
import java.io.OutputStream;
import java.io.UncheckedIOException;
import java.net.ConnectException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.ExtendWith;
import org.junit.jupiter.api.io.TempDir;

/** What a worker with a real engine says of itself, on a real broker. */
@ExtendWith(LocalCluster.Extension.class)
final class HealthTest {
  private static final Duration TIMEOUT = Duration.ofSeconds(60);

  /** How long the group keeps its partitions to itself. */
  private static final String WITHHELD_MS = "3000";

  private static final Map<String, String> SETTINGS =
      Map.of("status.port", "0", "health.stuck.after", "2s");

  private final HttpClient http = HttpClient.newHttpClient();
  private final CountDownLatch goOn = new CountDownLatch(1);

  @TempDir Path temp;

  @AfterEach
  void close() {
    goOn.countDown();
    http.close();
  }

  /** Another broker, with settings of its own, and the registry of the others. */
  private record OwnBroker(LocalBroker broker, LocalRegistry registry, Path folder)
      implements Cluster {
    @Override
    public String bootstrap() {
      return broker.bootstrap();
    }

    @Override
    public void close() {
      broker.close();
    }
  }

  /** The real generator, whose listeners or whose takers hang until the test lets them go on. */
  private final class Hanging implements Generator {
    private final LlmGenerator generator;
    private final boolean inSubmit;

    Hanging(LlmGenerator generator, boolean inSubmit) {
      this.generator = generator;
      this.inSubmit = inSubmit;
    }

    @Override
    public String model() {
      return generator.model();
    }

    @Override
    public SamplingParams samplingDefaults() {
      return generator.samplingDefaults();
    }

    @Override
    public Generation submit(GenerateRequest request, Consumer<GenerateEvent> listener) {
      if (inSubmit) {
        hang();
      }
      return generator.submit(
          request,
          event -> {
            hang();
            listener.accept(event);
          });
    }

    private void hang() {
      try {
        assertThat(goOn.await(TIMEOUT.toSeconds(), TimeUnit.SECONDS)).isTrue();
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
      }
    }

    @Override
    public Status status() {
      return generator.status();
    }

    @Override
    public Counters counters() {
      return generator.counters();
    }

    @Override
    public void close() {
      goOn.countDown();
      generator.close();
    }
  }

  private HttpResponse<String> get(int port, String path) throws IOException, InterruptedException {
    return http.send(
        HttpRequest.newBuilder(URI.create("http://127.0.0.1:" + port + path)).build(),
        HttpResponse.BodyHandlers.ofString());
  }

  private void await(int port, String path, int code, String reason) throws Exception {
    long deadline = System.nanoTime() + TIMEOUT.toNanos();
    HttpResponse<String> answer = get(port, path);
    while (answer.statusCode() != code || !answer.body().contains(reason)) {
      assertThat(System.nanoTime())
          .as("%s says %d %s", path, answer.statusCode(), answer.body())
          .isLessThan(deadline);
      Thread.sleep(20);
      answer = get(port, path);
    }
  }

  private Path model() {
    return RandomCheckpoint.write(temp.resolve("model"), Environment.home(), 1);
  }

  private LlmGenerator open() throws IOException {
    return LlmGenerator.open(
        model(),
        EngineConfig.defaults(),
        DeviceOptions.of("cpu"),
        LlmGenerator.Options.of("random"));
  }

  @Test
  void shouldBeReadyOnlyWithAModelThatIsLoadedAndWarmAndWithPartitions(Cluster shared)
      throws Exception {
    Path model = model();
    // A pipe: reading the model takes until the test has written.
    Path template = model.resolve("chat_template.jinja");
    String text = Files.readString(template);
    Files.delete(template);
    assertThat(new ProcessBuilder("mkfifo", template.toString()).start().waitFor()).isZero();
    int port = Ports.free(1)[0];
    Map<String, String> settings =
        Map.of(
            "model.path", model.toString(),
            "model.name", "random",
            "status.port", Integer.toString(port));
    try (OwnBroker cluster =
            new OwnBroker(
                LocalBroker.start(
                    temp.resolve("broker"),
                    Map.of("group.initial.rebalance.delay.ms", WITHHELD_MS)),
                shared.registry(),
                temp);
        Scene scene = Scene.on(cluster, settings);
        ForkedJvm worker = Workers.forkMain(scene)) {
      // Opens when somebody reads.
      try (OutputStream pipe =
          CompletableFuture.supplyAsync(() -> pipe(template))
              .get(TIMEOUT.toSeconds(), TimeUnit.SECONDS)) {
        assertThatThrownBy(() -> get(port, "/health/ready"))
            .as("while the model loads")
            .isInstanceOf(ConnectException.class);
        pipe.write(text.getBytes(UTF_8));
      }
      HttpResponse<String> first = first(worker, port);
      assertThat(first.body()).contains("STARTING", "has not given it partitions");
      assertThat(first.statusCode()).isEqualTo(503);
      assertThat(get(port, "/health/live").statusCode()).isEqualTo(200);
      assertThat(get(port, "/metrics").body())
          .as("steps that warmed it")
          .containsPattern("millrace_engine_steps_total [1-9]");
      await(port, "/health/ready", 200, "RUNNING, 4 partitions");
    }
  }

  private static OutputStream pipe(Path file) {
    try {
      return Files.newOutputStream(file);
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  /** What it says when it first says anything. */
  private HttpResponse<String> first(ForkedJvm worker, int port) throws Exception {
    long deadline = System.nanoTime() + TIMEOUT.toNanos();
    while (true) {
      try {
        return get(port, "/health/ready");
      } catch (ConnectException e) {
        assertThat(System.nanoTime()).as(worker.log()).isLessThan(deadline);
        Thread.sleep(10);
      }
    }
  }

  @Test
  void shouldNotBeLiveWhileItsEngineHangsNorReadyWhenItEnds(Cluster cluster) throws Exception {
    try (Scene scene = Scene.on(cluster, SETTINGS);
        Generator generator = new Hanging(open(), false);
        Worker worker = Workers.start(scene, generator)) {
      int port = worker.statusPort();
      await(port, "/health/live", 200, "RUNNING");
      scene.send(Prompts.many("p", 3, 4));
      await(port, "/health/live", 503, "the engine has not come on for");
      await(port, "/health/ready", 200, "RUNNING");
      CompletableFuture<Boolean> drained =
          CompletableFuture.supplyAsync(() -> worker.close(TIMEOUT));
      await(port, "/health/ready", 503, "DRAINING");
      goOn.countDown();
      assertThat(drained).succeedsWithin(TIMEOUT).isEqualTo(true);
      scene.awaitSettled(TIMEOUT);
      assertThat(scene.ledger().deadLetters()).isEmpty();
    }
  }

  @Test
  void shouldNotBeLiveWhileItsStreamThreadHangs(Cluster cluster) throws Exception {
    try (Scene scene = Scene.on(cluster, SETTINGS);
        Generator generator = new Hanging(open(), true);
        Worker worker = Workers.start(scene, generator)) {
      int port = worker.statusPort();
      await(port, "/health/live", 200, "RUNNING");
      scene.send(Prompts.many("p", 1, 4));
      await(port, "/health/live", 503, "a stream thread has not polled for");
      goOn.countDown();
      await(port, "/health/live", 200, "RUNNING");
      scene.awaitSettled(TIMEOUT);
    }
  }
}
