package dev.millrace.topology.supervisor;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;

import dev.millrace.topology.WorkerConfig;
import dev.millrace.topology.local.ForkedJvm;
import dev.millrace.topology.supervisor.WorkerSupervisor.End;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.PrintStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** The supervisor with processes that only do what they are told. */
class WorkerSupervisorTest {
  private static final long SEED = 7;
  private static final Duration TIMEOUT = Duration.ofSeconds(30);
  private static final WorkerSupervisor.Patience SHORT =
      new WorkerSupervisor.Patience(
          new Backoff.Limits(
              Duration.ofMillis(20), Duration.ofMillis(100), Duration.ofSeconds(20), 3),
          Duration.ofMillis(600));

  @TempDir Path folder;
  private final ByteArrayOutputStream said = new ByteArrayOutputStream();

  static WorkerSupervisor.Launch launch(Path folder, PrintStream logs) {
    return new WorkerSupervisor.Launch(
        List.of("-Xmx64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"),
        FakeWorker.class.getName(),
        List.of(folder.toString()),
        logs,
        true,
        SEED);
  }

  private WorkerSupervisor start(String... orders) throws IOException {
    List<Map<String, String>> each = new ArrayList<>();
    for (int i = 0; i < orders.length; i++) {
      order(i, orders[i]);
      each.add(Map.of("engine.device", "cuda:" + i));
    }
    WorkerSupervisor supervisor =
        new WorkerSupervisor(
            WorkerConfig.of(
                Map.of(
                    "kafka.bootstrap.servers", "nowhere:1",
                    "kafka.state.dir", "/state",
                    "kafka.group.instance.id", "rack",
                    "status.port", "0")),
            each,
            launch(folder, new PrintStream(said, true, UTF_8)),
            SHORT);
    supervisor.start();
    return supervisor;
  }

  private void order(int worker, String text) throws IOException {
    Files.writeString(folder.resolve("worker-" + worker), text);
  }

  private interface Condition {
    boolean holds() throws Exception;
  }

  private void await(String what, Condition condition) throws Exception {
    long deadline = System.nanoTime() + TIMEOUT.toNanos();
    while (!condition.holds()) {
      assertThat(System.nanoTime()).as("%s; said:\n%s", what, said).isLessThan(deadline);
      Thread.sleep(20);
    }
  }

  private static HttpResponse<String> get(WorkerSupervisor supervisor, String path)
      throws Exception {
    try (HttpClient client = HttpClient.newHttpClient()) {
      return client.send(
          HttpRequest.newBuilder(URI.create("http://127.0.0.1:" + supervisor.statusPort() + path))
              .build(),
          HttpResponse.BodyHandlers.ofString());
    }
  }

  private static boolean ready(WorkerSupervisor supervisor) throws Exception {
    return get(supervisor, "/health/ready").statusCode() == 200;
  }

  @Test
  void shouldShowAllWorkersInOnePlaceAndGiveEachItsOwnSettings() throws Exception {
    try (WorkerSupervisor supervisor = start("serve", "serve unready")) {
      await("worker 1 asked", () -> get(supervisor, "/health/ready").body().contains("as told"));
      assertThat(get(supervisor, "/health/live").statusCode()).isEqualTo(200);
      assertThat(get(supervisor, "/health/ready").body())
          .contains("worker 1 is not ready: as told");
      order(1, "serve");
      await("all ready", () -> ready(supervisor));
      assertThat(get(supervisor, "/metrics").body())
          .contains(
              "millrace_worker_up{worker=\"0\"} 1\nmillrace_worker_up{worker=\"1\"} 1\n",
              "# TYPE x_total counter\nx_total{worker=\"0\",a=\"b\"} 1.0\n"
                  + "x_total{worker=\"1\",a=\"b\"} 1.0\n");
      assertThat(said.toString(UTF_8))
          .contains("[worker 0] has MILLRACE_ENGINE_DEVICE=cuda:0")
          .contains("[worker 1] has MILLRACE_ENGINE_DEVICE=cuda:1")
          .contains("[worker 0] has MILLRACE_KAFKA_STATE_DIR=/state/worker-0")
          .contains("[worker 1] has MILLRACE_KAFKA_GROUP_INSTANCE_ID=rack-1");
    }
  }

  @Test
  void shouldStartAWorkerAgainThatWasKilled() throws Exception {
    try (WorkerSupervisor supervisor = start("serve", "serve")) {
      await("all ready", () -> ready(supervisor));
      long killed = supervisor.pids().getFirst();
      long other = supervisor.pids().getLast();
      ProcessHandle.of(killed).orElseThrow().destroyForcibly();
      await(
          "a new process",
          () -> supervisor.pids().getFirst() >= 0 && supervisor.pids().getFirst() != killed);
      await("all ready", () -> ready(supervisor));
      assertThat(supervisor.pids().getLast()).isEqualTo(other);
      assertThat(get(supervisor, "/metrics").body())
          .contains("millrace_worker_restarts_total{worker=\"0\"} 1")
          .contains("millrace_worker_restarts_total{worker=\"1\"} 0");
    }
  }

  @Test
  void shouldNotRepeatWhatTheSettingsForbid() throws Exception {
    try (WorkerSupervisor supervisor = start("exit 4", "serve")) {
      supervisor.awaitEnding();
      assertThat(supervisor.failure()).contains("worker 0 ended with code 4", "own lines");
      assertThat(supervisor.stop(Duration.ofSeconds(5))).isEqualTo(End.SETTINGS);
      assertThat(said.toString(UTF_8)).containsOnlyOnce("[worker 0] has MILLRACE_ENGINE_DEVICE");
      assertThat(supervisor.pids()).containsOnly(-1L);
    }
  }

  @Test
  void shouldGiveUpAWorkerThatNeverComesToRun() throws Exception {
    try (WorkerSupervisor supervisor = start("exit 1")) {
      supervisor.awaitEnding();
      assertThat(supervisor.failure()).contains("worker 0 was started 3 times", "code 1");
      assertThat(supervisor.stop(Duration.ofSeconds(5))).isEqualTo(End.FAILED);
    }
  }

  @Test
  void shouldNotBeLiveWhileAWorkerIsStuckAndThenReplaceIt() throws Exception {
    try (WorkerSupervisor supervisor = start("serve", "serve")) {
      await("all ready", () -> ready(supervisor));
      long stuck = supervisor.pids().getLast();
      order(1, "serve stuck");
      await("stuck", () -> get(supervisor, "/health/live").statusCode() == 503);
      assertThat(get(supervisor, "/health/live").body()).contains("worker 1 is not live");
      await("killed", () -> supervisor.pids().getLast() != stuck);
      order(1, "serve");
      await("live", () -> get(supervisor, "/health/live").statusCode() == 200);
      await("all ready", () -> ready(supervisor));
    }
  }

  @Test
  void shouldPassTheEndOnAndSayWhatTheWorkersLeft() throws Exception {
    try (WorkerSupervisor supervisor = start("serve", "serve 3")) {
      await("all ready", () -> ready(supervisor));
      assertThat(supervisor.stop(Duration.ofSeconds(20))).isEqualTo(End.UNFINISHED);
      assertThat(said.toString(UTF_8)).contains("[worker 0] told to end", "[worker 1] told to end");
    }
    try (WorkerSupervisor supervisor = start("serve", "serve")) {
      await("all ready", () -> ready(supervisor));
      assertThat(supervisor.stop(Duration.ofSeconds(20))).isEqualTo(End.DRAINED);
    }
  }

  @Test
  void shouldNotCallItUnfinishedWhenAWorkerEndedBadly() throws Exception {
    try (WorkerSupervisor supervisor = start("serve 3", "serve 1")) {
      await("all ready", () -> ready(supervisor));
      assertThat(supervisor.stop(Duration.ofSeconds(20))).isEqualTo(End.FAILED);
    }
  }

  @Test
  void shouldTakeItsWorkersWithItWhenItIsKilled() throws Exception {
    order(0, "serve");
    order(1, "hold");
    Path log = folder.resolve("supervisor.log");
    List<ProcessHandle> workers = new ArrayList<>();
    try (ForkedJvm supervisor =
        ForkedJvm.start(
            new ForkedJvm.Spec(
                "the supervisor",
                List.of("-Xmx64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"),
                null,
                FakeSupervisor.class.getName(),
                List.of(folder.toString()),
                log,
                folder))) {
      supervisor.awaitReady(TIMEOUT, () -> supervisor.log().contains("pids ["));
      Matcher pids = Pattern.compile("pids \\[(\\d+), (\\d+)]").matcher(supervisor.log());
      assertThat(pids.find()).isTrue();
      for (int i = 1; i <= 2; i++) {
        workers.add(ProcessHandle.of(Long.parseLong(pids.group(i))).orElseThrow());
      }
      assertThat(workers).allMatch(ProcessHandle::isAlive);
      supervisor.kill9();
      await("the workers' end", () -> workers.stream().noneMatch(ProcessHandle::isAlive));
    } finally {
      workers.forEach(ProcessHandle::destroyForcibly);
    }
  }
}
