package dev.millrace.topology.supervisor;

import dev.millrace.topology.Environment;
import dev.millrace.topology.StatusServer;
import dev.millrace.topology.StatusServer.Health;
import dev.millrace.topology.WorkerConfig;
import dev.millrace.topology.supervisor.WorkerProcess.Answer;
import dev.millrace.topology.supervisor.WorkerProcess.State;
import java.io.IOException;
import java.io.PrintStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Runs several workers, each in a Java process of its own: one for each GPU, or several on one
 * processor. A worker that ends is started again, with a pause that grows; one that is stuck is
 * killed, and Kafka moves its prompts. All of them show their metrics and their health in one
 * place. They end with the supervisor, however it ends ({@link
 * dev.millrace.topology.local.ParentWatch}).
 *
 * <p>It is live as long as no worker is stuck, and ready when every worker is: nobody routes
 * prompts by readiness, since workers fetch theirs themselves, but roll-outs wait for it, and they
 * must not go on to the next machine while this one lacks a worker.
 *
 * <p>Whoever makes it closes it. Safe for several threads.
 */
public final class WorkerSupervisor implements AutoCloseable {
  private static final Logger log = LoggerFactory.getLogger(WorkerSupervisor.class);

  static final String STATUS_PORT = "millrace: status port ";

  /** Exit code: the command line, or the settings, are wrong. */
  static final Set<Integer> NOT_TO_BE_REPEATED = Set.of(2, 4);

  /** Exit code: told to end, and left prompts to the next one. */
  private static final int UNFINISHED = 3;

  private static final Duration ASK = Duration.ofSeconds(5);

  /** A worker leaves its group and closes its parts after the grace time. */
  private static final Duration LEAVE = Duration.ofSeconds(25);

  /**
   * What a worker process runs.
   *
   * @param logs where its lines go, those of all workers to one stream
   * @param prefixed whether each line begins with the worker it came from
   * @param seed of the random part of the pauses
   */
  public record Launch(
      List<String> jvmFlags,
      String mainClass,
      List<String> args,
      PrintStream logs,
      boolean prefixed,
      long seed) {}

  /**
   * How long to wait for what.
   *
   * @param stuck a worker that is not live for so long is killed
   */
  record Patience(Backoff.Limits backoff, Duration stuck) {
    static final Patience USUAL =
        new Patience(
            new Backoff.Limits(
                Duration.ofSeconds(1), Duration.ofSeconds(30), Duration.ofMinutes(1), 8),
            Duration.ofSeconds(30));
  }

  /** How it came to an end. */
  public enum End {
    /** Told to, and the workers finished what they had begun. */
    DRAINED,
    /** Told to, and some worker left prompts to the next one. */
    UNFINISHED,
    /** A worker can never run with these settings. */
    SETTINGS,
    /** A worker did not come to run, or one ended badly. */
    FAILED
  }

  private final WorkerConfig config;
  private final HttpClient http = HttpClient.newBuilder().connectTimeout(ASK).build();
  private final List<WorkerProcess> workers = new ArrayList<>();
  private final List<Thread> threads = new ArrayList<>();
  private final CountDownLatch ending = new CountDownLatch(1);
  private volatile @Nullable String failure;
  private volatile boolean settingsWrong;
  private @Nullable StatusServer status;

  /**
   * @param config the settings that all share
   * @param each what each worker has of its own, a map for each worker
   */
  public WorkerSupervisor(WorkerConfig config, List<Map<String, String>> each, Launch launch) {
    this(config, each, launch, Patience.USUAL);
  }

  WorkerSupervisor(
      WorkerConfig config, List<Map<String, String>> each, Launch launch, Patience patience) {
    this.config = config;
    for (int i = 0; i < each.size(); i++) {
      String label = Integer.toString(i);
      Map<String, String> settings = new HashMap<>(config.forWorker(label));
      settings.putAll(each.get(i));
      workers.add(new WorkerProcess(label, settings, launch, patience, new Asker()));
    }
  }

  /** Tells a supervisor, if this process has one, where its status server listens. */
  public static void announce(int port) {
    if (Environment.worker() != null && port >= 0) {
      System.out.println(STATUS_PORT + port);
      System.out.flush();
    }
  }

  /**
   * Starts the workers; returns at once.
   *
   * @throws dev.millrace.topology.ConfigException if the status server cannot listen
   */
  public void start() {
    if (config.statusPort() >= 0) {
      status =
          new StatusServer(
              config.statusHost(), config.statusPort(), this::metrics, this::live, this::ready);
    }
    for (WorkerProcess worker : workers) {
      threads.add(Thread.ofPlatform().name("worker-" + worker.label()).start(worker));
    }
  }

  /** Waits until it is told to end or a worker cannot be brought to run. */
  public void awaitEnding() throws InterruptedException {
    ending.await();
  }

  /** Why it came to an end by itself; null if it did not. */
  public @Nullable String failure() {
    return failure;
  }

  /** The port of the common status server; -1 if there is none. */
  public int statusPort() {
    StatusServer server = status;
    return server == null ? -1 : server.port();
  }

  /** The processes' ids, -1 for a worker that has none at the moment. */
  public List<Long> pids() {
    return workers.stream().map(WorkerProcess::pid).toList();
  }

  /** Tells every worker to end, and waits: for the grace time and what a worker needs after it. */
  public End stop(Duration grace) {
    ending.countDown();
    workers.forEach(WorkerProcess::stop);
    long deadline = System.nanoTime() + grace.plus(LEAVE).toNanos();
    for (int i = 0; i < threads.size(); i++) {
      join(threads.get(i), deadline);
      if (threads.get(i).isAlive()) {
        log.error("worker {} does not end and is killed", workers.get(i).label());
        workers.get(i).kill();
        join(threads.get(i), System.nanoTime() + LEAVE.toNanos());
      }
    }
    StatusServer server = status;
    if (server != null) {
      server.close();
    }
    if (failure != null) {
      return settingsWrong ? End.SETTINGS : End.FAILED;
    }
    End end = End.DRAINED;
    for (WorkerProcess worker : workers) {
      int code = worker.exitCode();
      if (code == UNFINISHED && end == End.DRAINED) {
        end = End.UNFINISHED;
      } else if (code != 0 && code != UNFINISHED) {
        log.error("worker {} ended badly, with code {}", worker.label(), code);
        end = End.FAILED;
      }
    }
    return end;
  }

  private static void join(Thread thread, long deadline) {
    try {
      thread.join(Duration.ofNanos(Math.max(1, deadline - System.nanoTime())));
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }

  @Override
  public void close() {
    End unused = stop(config.drainGrace());
    http.shutdownNow();
  }

  /** What workers need of their supervisor. */
  private final class Asker implements WorkerProcess.Owner {
    @Override
    public Answer ask(int port) {
      try {
        HttpResponse<String> live = get(port, "/health/live");
        if (live.statusCode() != 200) {
          return new Answer(State.STUCK, "is not live: " + live.body().strip());
        }
        HttpResponse<String> ready = get(port, "/health/ready");
        return ready.statusCode() == 200
            ? new Answer(State.READY, "is ready: " + ready.body().strip())
            : new Answer(State.NOT_READY, "is not ready: " + ready.body().strip());
      } catch (IOException e) {
        return new Answer(State.STUCK, "does not answer: " + e);
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
        return new Answer(State.NOT_READY, "was not asked");
      }
    }

    @Override
    public void gaveUp(String why, boolean settings) {
      failure = why;
      settingsWrong = settings;
      ending.countDown();
    }
  }

  private HttpResponse<String> get(int port, String path) throws IOException, InterruptedException {
    return http.send(request(port, path), HttpResponse.BodyHandlers.ofString());
  }

  private static HttpRequest request(int port, String path) {
    return HttpRequest.newBuilder(URI.create("http://127.0.0.1:" + port + path))
        .timeout(ASK)
        .build();
  }

  private String metrics() {
    Map<WorkerProcess, CompletableFuture<HttpResponse<String>>> asked = new LinkedHashMap<>();
    for (WorkerProcess worker : workers) {
      if (worker.port() > 0) {
        asked.put(
            worker,
            http.sendAsync(
                request(worker.port(), "/metrics"), HttpResponse.BodyHandlers.ofString()));
      }
    }
    MergedMetrics merged = new MergedMetrics();
    Map<String, Integer> up = new LinkedHashMap<>();
    Map<String, Integer> restarts = new LinkedHashMap<>();
    for (WorkerProcess worker : workers) {
      up.put(worker.label(), worker.pid() >= 0 ? 1 : 0);
      restarts.put(worker.label(), worker.restarts());
    }
    merged.add("millrace_worker_up", "gauge", "Whether the worker's process runs", up);
    merged.add(
        "millrace_worker_restarts_total", "counter", "Starts after the worker's first", restarts);
    asked.forEach(
        (worker, answer) -> {
          // One that does not answer in time is left out; millrace_worker_up still has it.
          String text = answer.handle((got, failed) -> got == null ? "" : got.body()).join();
          merged.add(worker.label(), text);
        });
    return merged.text();
  }

  private Health live() {
    return all(Set.of(State.STUCK), "no worker is stuck");
  }

  private Health ready() {
    return all(
        Set.of(State.STARTING, State.NOT_READY, State.STUCK, State.PAUSING, State.ENDED),
        "every worker is ready");
  }

  private Health all(Set<State> bad, String good) {
    StringBuilder reasons = new StringBuilder();
    for (WorkerProcess worker : workers) {
      Answer answer = worker.answer();
      if (bad.contains(answer.state())) {
        reasons.append("worker ").append(worker.label()).append(' ');
        reasons.append(answer.reason()).append('\n');
      }
    }
    return reasons.isEmpty() ? new Health(true, good) : new Health(false, reasons.toString());
  }
}
