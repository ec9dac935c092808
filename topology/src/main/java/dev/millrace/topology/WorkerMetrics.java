package dev.millrace.topology;

import dev.millrace.inference.api.GenerateEvent;
import dev.millrace.inference.api.Generator;
import dev.millrace.schemas.CompletionFinish;
import io.micrometer.core.instrument.Counter;
import io.micrometer.core.instrument.FunctionCounter;
import io.micrometer.core.instrument.Gauge;
import io.micrometer.core.instrument.MeterRegistry;
import io.micrometer.core.instrument.Timer;
import java.time.Duration;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.Supplier;
import java.util.function.ToDoubleFunction;

/** What a worker counts and measures, under {@code millrace.}. Safe for several threads. */
final class WorkerMetrics {
  private static final Duration STATUS_AGE = Duration.ofMillis(200);

  private final MeterRegistry registry;
  private final Counter[] completed = new Counter[CompletionFinish.values().length];
  private final Counter[] deadLetters = new Counter[DeadLetters.Reason.values().length];
  private final Counter[] repliesRefused = new Counter[ReplyOutbox.Refusal.values().length];

  /** Prompts taken in. */
  final Counter accepted;

  /** Prompts dropped because one with the same id was answered or is in flight. */
  final Counter duplicates;

  /** Records read again that were in flight already. */
  final Counter replayed;

  /** Prompts taken over from an earlier owner of the task. */
  final Counter restored;

  /** Outcomes sent a second time, since the first was not known to be durable. */
  final Counter sentAgain;

  /** Attempts after the first. */
  final Counter retried;

  /** Events of the engine that came for an attempt or a task that is no more. */
  final Counter late;

  /** Generated tokens that were received. */
  final Counter tokens;

  /** Tool calls sent. */
  final Counter toolCalls;

  /** Answers and refusals that reply topics have taken. */
  final Counter replies;

  /** Times that the registry gave no answer. */
  final Counter registryFailures;

  /** Suspects that ran alone. */
  final Counter quarantined;

  /**
   * Generated tokens that were not saved when their task was closed here: the next owner generates
   * them again. What a crash cost nobody is left to count; what it can cost is shown by {@link
   * #atRisk}.
   */
  final Counter regenerated;

  /** Bytes of generated tokens that were saved. */
  final Counter savedBytes;

  /** Saves that had to wait, since too many bytes were saved in this second. */
  final Counter savesPutOff;

  final Counter held;

  private final AtomicLong atRisk = new AtomicLong();
  private final AtomicLong mostAtRisk = new AtomicLong();

  /** The same and more under names that others use. */
  final ServingMetrics serving;

  private final Timer time;

  /**
   * @param model the name that prompts ask for
   */
  WorkerMetrics(MeterRegistry registry, String model) {
    this.registry = registry;
    this.serving = new ServingMetrics(registry, model);
    for (CompletionFinish finish : CompletionFinish.values()) {
      completed[finish.ordinal()] =
          registry.counter("millrace.prompts.completed", "finish", finish.name());
    }
    for (DeadLetters.Reason reason : DeadLetters.Reason.values()) {
      deadLetters[reason.ordinal()] =
          registry.counter("millrace.prompts.dead.lettered", "reason", reason.name());
    }
    accepted = registry.counter("millrace.prompts.accepted");
    duplicates = registry.counter("millrace.prompts.duplicate");
    replayed = registry.counter("millrace.prompts.replayed");
    restored = registry.counter("millrace.prompts.restored");
    sentAgain = registry.counter("millrace.prompts.sent.again");
    retried = registry.counter("millrace.prompts.retried");
    late = registry.counter("millrace.events.late");
    tokens = registry.counter("millrace.tokens.generated");
    toolCalls = registry.counter("millrace.tool.calls");
    replies = registry.counter("millrace.replies.sent");
    for (ReplyOutbox.Refusal refusal : ReplyOutbox.Refusal.values()) {
      repliesRefused[refusal.ordinal()] =
          registry.counter("millrace.replies.refused", "reason", refusal.name());
    }
    registryFailures = registry.counter("millrace.registry.failures");
    quarantined = registry.counter("millrace.prompts.quarantined");
    regenerated = registry.counter("millrace.tokens.regenerated");
    savedBytes = registry.counter("millrace.progress.saved.bytes");
    held = registry.counter("millrace.prompts.held");
    savesPutOff = registry.counter("millrace.progress.saves.put.off");
    gauge("millrace.tokens.at.risk", atRisk, AtomicLong::get);
    gauge("millrace.tokens.at.risk.most", mostAtRisk, AtomicLong::get);
    time =
        Timer.builder("millrace.prompt.time")
            .description("From taking a prompt in to sending its outcome")
            .publishPercentiles(0.5, 0.95, 0.99)
            .register(registry);
  }

  /** So many more or fewer generated tokens are not known to be durable. */
  void atRisk(long change) {
    atRisk.addAndGet(change);
  }

  /** So many tokens of one prompt are not known to be durable: a crash now costs at most these. */
  void atRiskOfOne(int tokens) {
    if (tokens > mostAtRisk.get()) {
      mostAtRisk.accumulateAndGet(tokens, Math::max);
    }
  }

  /** A prompt, taken in at that time, has its completion now. */
  void completed(CompletionFinish finish, GenerateEvent.Done done, long acceptedAt, long now) {
    long millis = Math.max(0, now - acceptedAt);
    completed[finish.ordinal()].increment();
    time.record(millis, TimeUnit.MILLISECONDS);
    serving.completed(finish, done, millis);
  }

  void deadLettered(DeadLetters.Reason reason) {
    deadLetters[reason.ordinal()].increment();
  }

  /** A reply was asked for and is not sent. */
  void replyRefused(ReplyOutbox.Refusal why) {
    repliesRefused[why.ordinal()].increment();
  }

  /** Shows how full the worker and its engine are. */
  void watch(Gate gate, Generator generator) {
    Supplier<Generator.Status> status = cached(generator);
    gauge("millrace.prompts.running", gate, Gate::running);
    gauge("millrace.prompts.kept", gate, Gate::kept);
    gauge("millrace.prompts.kept.bytes", gate, Gate::keptBytes);
    gauge("millrace.gate.open", gate, g -> g.open() ? 1 : 0);
    gauge("millrace.engine.waiting", status, s -> s.get().waiting());
    gauge("millrace.engine.running", status, s -> s.get().running());
    gauge("millrace.engine.waiting.tokens", status, s -> s.get().waitingTokens());
    gauge("millrace.engine.running.tokens", status, s -> s.get().runningTokens());
    gauge("millrace.engine.kv.use", status, s -> s.get().kvUse());
    gauge("millrace.engine.generated", status, s -> s.get().generated());
    sum("millrace.engine.steps", generator, g -> g.counters().steps());
    sum("millrace.engine.steps.failed", generator, g -> g.counters().failedSteps());
    sum("millrace.engine.step.tokens", generator, g -> g.counters().tokens());
    sum("millrace.engine.step.sequences", generator, g -> g.counters().sequences());
    sum("millrace.engine.preemptions", generator, g -> g.counters().preemptions());
    serving.watch(generator, status);
  }

  private <T> void sum(String name, T of, ToDoubleFunction<T> value) {
    FunctionCounter.builder(name, of, value).register(registry);
  }

  private <T> void gauge(String name, T of, ToDoubleFunction<T> value) {
    Gauge.builder(name, of, value).strongReference(true).register(registry);
  }

  private static Supplier<Generator.Status> cached(Generator generator) {
    return new Supplier<>() {
      private Generator.Status last = generator.status();
      private long at = System.nanoTime();

      @Override
      public synchronized Generator.Status get() {
        if (System.nanoTime() - at > STATUS_AGE.toNanos()) {
          last = generator.status();
          at = System.nanoTime();
        }
        return last;
      }
    };
  }
}
