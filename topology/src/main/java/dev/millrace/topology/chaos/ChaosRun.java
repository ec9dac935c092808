package dev.millrace.topology.chaos;

import dev.millrace.schemas.PromptEvent;
import dev.millrace.schemas.RegistryUnavailableException;
import dev.millrace.topology.chaos.FaultPlan.Step;
import dev.millrace.topology.cli.EventClient;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.FutureTask;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;

/** One run from the first process to the verdict. For one thread. */
public final class ChaosRun {
  private static final Duration QUIET = Duration.ofMinutes(3);
  private static final Duration FIRST_ANSWER = Duration.ofSeconds(180);
  private static final Duration AFTERWARDS = Duration.ofSeconds(2);
  private static final Duration POLL = Duration.ofMillis(100);
  private static final int MOST_NAMED = 20;

  private final ChaosOptions options;
  private final List<Step> plan;
  private final Path folder;
  private final Consumer<String> out;
  private final Recovery recovery = new Recovery();
  private final Books books = new Books(recovery);

  /**
   * @param folder takes the files of all processes; empty or missing
   * @param out gets a line at a time
   */
  public ChaosRun(ChaosOptions options, Path folder, Consumer<String> out) {
    this(options, FaultPlan.of(options), folder, out);
  }

  ChaosRun(ChaosOptions options, List<Step> plan, Path folder, Consumer<String> out) {
    this.options = options;
    this.plan = List.copyOf(plan);
    this.folder = folder;
    this.out = out;
  }

  /** Runs it all and says what came of it. */
  public ChaosReport run() throws InterruptedException {
    out.accept(
        "seed %d: %s, %s protocol, %d workers, %.0f prompts/s for %.1f min, %d faults, from %s"
            .formatted(
                options.seed(),
                options.guarantee(),
                options.protocol(),
                options.workers(),
                options.rate(),
                options.length().toMillis() / 60e3,
                plan.size(),
                options.faults()));
    for (Step step : plan) {
      out.accept("plan %7.1f s  %s".formatted(step.atMs() / 1e3, step));
    }
    try (Stage stage = Stage.open(options, folder);
        EventClient client = new EventClient(stage.config)) {
      for (WorkerPlace place : stage.places.subList(0, options.workers())) {
        place.start();
      }
      return run(stage, client);
    }
  }

  private ChaosReport run(Stage stage, EventClient client) throws InterruptedException {
    Load load = new Load(options);
    warmUp(stage, client);
    Sender sender = new Sender(options, load, books, client, System.currentTimeMillis());
    Faults faults = new Faults(options, stage, load, sender, books, recovery, out);
    FutureTask<Void> sending = task("chaos-sender", sender::run);
    FutureTask<Void> breaking = task("chaos-faults", () -> faults.run(plan));
    while (!sending.isDone() || !breaking.isDone()) {
      read(client);
    }
    join(sending);
    join(breaking);
    out.accept(
        "%7.1f s  no more faults, %d prompts are under way"
            .formatted(sender.now() / 1e3, books.sent() - books.settled()));
    awaitQuiet(sender, faults, client);
    endWorkers(stage, client);
    books.checkChunks();
    return new ChaosReport(
        options,
        books,
        recovery,
        faults.log(),
        Holders.read(stage.places, books::partition),
        Regenerated.of(stage.places.stream().flatMap(place -> place.lives().stream()).toList()),
        stage.config.save().ahead());
  }

  private interface Work {
    void run() throws InterruptedException;
  }

  private static FutureTask<Void> task(String name, Work work) {
    FutureTask<Void> task =
        new FutureTask<>(
            () -> {
              work.run();
              return null;
            });
    Thread.ofPlatform().daemon().name(name).start(task);
    return task;
  }

  private static void join(FutureTask<Void> task) throws InterruptedException {
    try {
      Void unused = task.get();
    } catch (ExecutionException e) {
      throw new IllegalStateException("the run broke off: " + e.getCause(), e.getCause());
    }
  }

  /**
   * Waits until the workers answer: nothing is measured before. By then this side knows all schemas
   * and asks the registry for nothing more.
   */
  private void warmUp(Stage stage, EventClient client) throws InterruptedException {
    PromptEvent first = new Load(options).extra(Books.WARM_UP, Planned.Kind.STREAMED, 0).event();
    long deadline = System.nanoTime() + FIRST_ANSWER.toNanos();
    boolean sent = false;
    boolean answered = false;
    boolean chunk = false;
    while (!answered || !chunk) {
      try {
        if (!sent) {
          var unused = client.send(first);
          var unusedToo = client.cancel("nobody");
          sent = true;
        }
        for (EventClient.Outcome outcome : client.poll(POLL)) {
          answered |= outcome instanceof EventClient.Outcome.Completion;
          chunk |= outcome instanceof EventClient.Outcome.Chunk;
        }
      } catch (RegistryUnavailableException e) {
        // A machine that is busy with starting all this: again.
        client.rewind();
      }
      for (WorkerPlace place : stage.places) {
        if (place.died()) {
          throw new IllegalStateException(
              "worker %d ended with code %d: its log is in %s"
                  .formatted(place.number, place.bury(), folder));
        }
      }
      if (System.nanoTime() > deadline) {
        throw new IllegalStateException("no worker answers; their logs are in " + folder);
      }
    }
  }

  private void read(EventClient client) {
    for (EventClient.Outcome outcome : client.poll(POLL)) {
      books.enter(outcome, System.currentTimeMillis());
    }
  }

  /** Waits until each prompt has its end; names those that have none when the time is over. */
  private void awaitQuiet(Sender sender, Faults faults, EventClient client)
      throws InterruptedException {
    long deadline = System.nanoTime() + QUIET.toNanos();
    while (books.settled() < books.sent() || !sender.quiet()) {
      sender.acknowledge();
      faults.supervise(0);
      read(client);
      if (System.nanoTime() > deadline) {
        List<String> missing = books.missing();
        out.accept(
            "%d prompts have no outcome after %d s without faults: %s%s"
                .formatted(
                    missing.size(),
                    QUIET.toSeconds(),
                    String.join(", ", missing.subList(0, Math.min(MOST_NAMED, missing.size()))),
                    missing.size() > MOST_NAMED ? ", ..." : ""));
        return;
      }
    }
  }

  /** Tells all workers to end: none may have anything left. Reads what comes late. */
  private void endWorkers(Stage stage, EventClient client) throws InterruptedException {
    readFor(client, AFTERWARDS);
    for (WorkerPlace place : stage.places) {
      if (place.runs()) {
        place.terminate();
      }
    }
    for (WorkerPlace place : stage.places) {
      if (place.runs()) {
        int code = place.awaitEnd();
        if (code != 0) {
          books.problem(
              "worker %d ended with code %d: it had something left".formatted(place.number, code));
        }
      }
    }
    readFor(client, AFTERWARDS);
  }

  private void readFor(EventClient client, Duration time) throws InterruptedException {
    long end = System.nanoTime() + time.toNanos();
    while (System.nanoTime() < end) {
      read(client);
      TimeUnit.MILLISECONDS.sleep(1);
    }
  }
}
