package dev.millrace.topology.chaos;

import dev.millrace.topology.chaos.Fault.Hold;
import dev.millrace.topology.chaos.FaultPlan.Step;
import dev.millrace.topology.chaos.Planned.Kind;
import java.time.Duration;
import java.util.List;
import java.util.SplittableRandom;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;

/** Does to the parts what the plan says, one fault after the other. For one thread. */
final class Faults {
  private static final int BURST = 12;
  private static final int FIRST_EXTRA = 1_000_000;
  private static final long SUPERVISE_MS = 200;
  private static final int DRAINED = 0;
  private static final int UNFINISHED = 3;

  private final ChaosOptions options;
  private final Stage stage;
  private final Load load;
  private final Sender sender;
  private final Books books;
  private final Recovery recovery;
  private final LaterSchema schemas;
  private final Consumer<String> out;
  private final FaultLog log;
  private int nextExtra = FIRST_EXTRA;

  /** When all workers were there that should have been; milliseconds since 1970. */
  private long lookedAtMs = System.currentTimeMillis();

  Faults(
      ChaosOptions options,
      Stage stage,
      Load load,
      Sender sender,
      Books books,
      Recovery recovery,
      Consumer<String> out) {
    this.options = options;
    this.stage = stage;
    this.load = load;
    this.sender = sender;
    this.books = books;
    this.recovery = recovery;
    this.schemas = new LaterSchema(stage.registry.url(), stage.config.topics().prompts());
    this.out = out;
    this.log = new FaultLog(System.currentTimeMillis() - sender.now());
  }

  /** Runs the plan; returns when its last fault is mended and the run's time is over. */
  void run(List<Step> plan) throws InterruptedException {
    log.planned((int) plan.stream().filter(Step::kills).count());
    for (Step step : plan) {
      supervise(step.atMs() - sender.now());
      out.accept("%7.1f s  %s".formatted(sender.now() / 1e3, step));
      long from = System.currentTimeMillis();
      log.began(from);
      WorkerPlace worker = busy(step.worker());
      perform(step, worker);
      log.done(step.fault());
      Hold hold = step.fault().holds(options.protocol());
      if (hold != Hold.NOBODY) {
        log.heldUp(
            step.fault(),
            hold == Hold.ALL ? FaultLog.ALL : worker.number,
            from,
            System.currentTimeMillis());
      }
    }
    supervise(options.length().toMillis() - sender.now());
  }

  private void perform(Step step, WorkerPlace worker) throws InterruptedException {
    long length = step.length().toMillis();
    switch (step.fault()) {
      case KILL -> {
        kill(worker, Fault.KILL);
        supervise(length);
        worker.start();
      }
      case WIPE -> {
        kill(worker, Fault.WIPE);
        supervise(length);
        worker.wipe();
        worker.start();
      }
      case TERMINATE -> terminate(worker, length);
      case FREEZE -> {
        tell("worker %d stopped", worker);
        probe(Fault.FREEZE);
        worker.freeze(step.length());
        supervise(length + 500);
      }
      case BROKER -> {
        probe(Fault.BROKER);
        stage.broker.kill9();
        TimeUnit.MILLISECONDS.sleep(length);
        stage.broker.start();
      }
      case STORM -> storm(length, new SplittableRandom(options.seed() + step.atMs()));
      case REGISTRY_REFUSED, REGISTRY_500, REGISTRY_SLOW -> registry(step, worker, length);
      case SLOW -> {
        tell("worker %d slowed down", worker);
        worker.proxy.delay(Duration.ofMillis(50 + 3L * step.variant()));
        supervise(length);
        worker.proxy.delay(Duration.ZERO);
      }
      case OUTPUT -> output(step, worker, length);
      case CUT -> {
        tell("worker %d cut off", worker);
        probe(Fault.CUT);
        worker.proxy.cut();
        supervise(length);
        worker.proxy.mend();
      }
      case DUPLICATES -> burst(Kind.TWICE, length);
      case CANCELS -> burst(Kind.CANCELLED, length);
    }
  }

  private void tell(String format, WorkerPlace worker) {
    out.accept("           " + format.formatted(worker.number));
  }

  /** The worker with that number; where it has nothing in flight, the next one that has. */
  private WorkerPlace busy(int number) {
    for (int i = 0; i < options.workers(); i++) {
      WorkerPlace place = stage.places.get((number + i) % options.workers());
      if (inFlight(place) > 0) {
        return place;
      }
    }
    return stage.places.get(number);
  }

  private long inFlight(WorkerPlace worker) {
    return TokenLog.read(worker.lives().getLast().tokens()).stream()
        .map(TokenLog.Entry::number)
        .distinct()
        .filter(books::open)
        .count();
  }

  private void kill(WorkerPlace worker, Fault fault) {
    probe(fault);
    long from = System.currentTimeMillis();
    worker.kill(fault);
    log.ended(fault, worker.number, from, System.currentTimeMillis());
    long inFlight = inFlight(worker);
    if (inFlight > 0) {
      log.killedInFlight();
    }
    out.accept(
        "           kill -9 of worker %d with %d prompts in flight"
            .formatted(worker.number, inFlight));
  }

  private void probe(Fault fault) {
    recovery.begin(fault, System.currentTimeMillis(), books.partitionsInFlight());
  }

  private void terminate(WorkerPlace worker, long length) throws InterruptedException {
    probe(Fault.TERMINATE);
    worker.terminate();
    long from = sender.now();
    int code = awaitEnd(worker, Fault.TERMINATE);
    out.accept(
        "           worker %d ended with code %d after %.1f s"
            .formatted(worker.number, code, (sender.now() - from) / 1e3));
    if (code != DRAINED && code != UNFINISHED) {
      books.problem("worker %d ended with code %d on SIGTERM".formatted(worker.number, code));
    }
    supervise(length / 2);
    worker.start();
  }

  /** Waits until a worker that was told to end is gone. */
  private int awaitEnd(WorkerPlace worker, Fault fault) {
    int code = worker.awaitEnd();
    long now = System.currentTimeMillis();
    log.ended(fault, worker.number, now, now);
    return code;
  }

  private void storm(long length, SplittableRandom random) throws InterruptedException {
    List<WorkerPlace> extras =
        stage.places.subList(options.workers(), options.workers() + Stage.EXTRAS);
    long end = sender.now() + length;
    int joined = 0;
    int left = 0;
    while (sender.now() < end) {
      WorkerPlace extra = extras.get(random.nextInt(extras.size()));
      if (!extra.runs()) {
        extra.start();
        joined++;
      } else if (random.nextBoolean()) {
        long from = System.currentTimeMillis();
        extra.kill(Fault.STORM);
        log.ended(Fault.STORM, extra.number, from, System.currentTimeMillis());
        left++;
      } else {
        extra.terminate();
        awaitEnd(extra, Fault.STORM);
        left++;
      }
      supervise(random.nextLong(1_000, 3_000));
    }
    for (WorkerPlace extra : extras) {
      if (extra.runs()) {
        extra.terminate();
        awaitEnd(extra, Fault.STORM);
        left++;
      }
    }
    out.accept("           %d joins, %d leaves".formatted(joined, left));
  }

  private void registry(Step step, WorkerPlace worker, long length) throws InterruptedException {
    // Nobody has asked for it yet: whoever reads its prompts has to ask.
    int schema = schemas.register();
    switch (step.fault()) {
      case REGISTRY_REFUSED -> stage.front.refuse();
      case REGISTRY_500 -> stage.front.fail();
      default -> stage.front.slowDown();
    }
    try {
      for (int i = 0; i < BURST; i++) {
        sender.add(load.later(nextExtra++, schema, sender.now() + 100L * i));
      }
      supervise(length / 2);
      if (step.kills()) {
        // The next one knows no schema at all.
        kill(worker, step.fault());
        worker.start();
      }
      supervise(length / 2);
    } finally {
      stage.front.mend();
    }
  }

  private void output(Step step, WorkerPlace worker, long length) throws InterruptedException {
    stage.completions.refuse();
    try {
      supervise(length);
      if (step.kills()) {
        kill(worker, Fault.OUTPUT);
        supervise(1_000);
      }
    } finally {
      stage.completions.accept();
    }
    if (!worker.runs()) {
      worker.start();
    }
  }

  private void burst(Kind kind, long length) throws InterruptedException {
    for (int i = 0; i < BURST; i++) {
      sender.add(load.extra(nextExtra++, kind, sender.now() + 50L * i));
    }
    supervise(length);
  }

  /** Lets that much time pass, and starts again what has ended by itself. */
  void supervise(long millis) throws InterruptedException {
    long end = sender.now() + millis;
    do {
      for (WorkerPlace place : stage.places) {
        if (place.died()) {
          int code = place.bury();
          log.diedByItself(place.number, lookedAtMs, System.currentTimeMillis());
          out.accept(
              "%7.1f s  worker %d ended by itself with code %d and is started again"
                  .formatted(sender.now() / 1e3, place.number, code));
          place.start();
        }
      }
      lookedAtMs = System.currentTimeMillis();
      TimeUnit.MILLISECONDS.sleep(Math.clamp(end - sender.now(), 0, SUPERVISE_MS));
    } while (sender.now() < end);
  }

  /** What was done so far. */
  FaultLog log() {
    return log;
  }
}
