package dev.millrace.tests;

import static org.assertj.core.api.Assertions.assertThat;

import dev.millrace.topology.Environment;
import dev.millrace.topology.local.ForkedJvm;
import dev.millrace.topology.local.Ports;
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.ExtendWith;
import org.junit.jupiter.api.io.TempDir;

/** {@code millrace worker --workers 2}, with an engine and a broker. */
@ExtendWith(LocalCluster.Extension.class)
final class SupervisedWorkersTest {
  private static final Duration TIMEOUT = Duration.ofSeconds(90);

  @TempDir Path model;

  @Test
  void shouldLoseNothingWhenAWorkerOfTwoIsKilled(Cluster cluster) throws Exception {
    RandomCheckpoint.write(model, Environment.home(), 1);
    int port = Ports.free(1)[0];
    Map<String, String> settings =
        Map.of(
            "model.path",
            model.toString(),
            "model.name",
            "random",
            "status.port",
            Integer.toString(port),
            "kafka.session.timeout.ms",
            "6000");
    try (Scene scene = Scene.on(cluster, settings);
        HttpClient http = HttpClient.newHttpClient();
        ForkedJvm supervisor =
            Workers.fork(
                scene.folder(),
                dev.millrace.topology.Main.class.getName(),
                List.of("worker", "--config", scene.settingsFile().toString(), "--workers", "2"))) {
      supervisor.awaitReady(TIMEOUT, () -> get(http, port, "/health/ready").statusCode() == 200);
      scene.send(Prompts.many("before", 12, 200));
      supervisor.awaitReady(
          TIMEOUT, () -> get(http, port, "/metrics").body().contains("millrace_prompts_running"));
      ProcessHandle victim =
          ProcessHandle.of(supervisor.pid()).orElseThrow().children().findFirst().orElseThrow();
      assertThat(victim.destroyForcibly()).isTrue();
      scene.awaitSettled(TIMEOUT, supervisor);
      supervisor.awaitReady(TIMEOUT, () -> get(http, port, "/health/ready").statusCode() == 200);
      assertThat(get(http, port, "/metrics").body())
          .contains(
              "millrace_prompts_running{worker=\"0\"", "millrace_prompts_running{worker=\"1\"")
          .containsPattern("millrace_worker_restarts_total\\{worker=\"[01]\"} 1\n");
      assertThat(scene.ledger().deadLetters()).isEmpty();
      assertThat(scene.ledger().contradictions()).isZero();
      supervisor.terminate();
      assertThat(supervisor.awaitExit(TIMEOUT)).as(supervisor.log()).isZero();
    }
  }

  private static HttpResponse<String> get(HttpClient http, int port, String path)
      throws IOException, InterruptedException {
    return http.send(
        HttpRequest.newBuilder(URI.create("http://127.0.0.1:" + port + path)).build(),
        HttpResponse.BodyHandlers.ofString());
  }
}
