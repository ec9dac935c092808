package dev.millrace.topology;

import dev.millrace.inference.api.Generator;
import dev.millrace.topology.StatusServer.Health;
import java.time.Duration;
import java.util.function.LongSupplier;
import java.util.function.Supplier;
import org.jspecify.annotations.Nullable;

/**
 * Answers {@code /health/live} and {@code /health/ready}.
 *
 * <p>A worker is live until it has failed, or its engine, text work included, does not come on
 * while it has prompts, be it that they all wait for a commit that does not come, or a stream
 * thread does not come back to the consumer. It is ready from the end of the first rebalance on:
 * its model is loaded and warm before it joins. With more workers than partitions one has none; it
 * is ready all the same, since it takes over when another falls out, and a roll-out that waited for
 * it to get partitions would never end. Safe for several threads.
 */
final class WorkerHealth {
  private final Duration stuckAfter;
  private final LongSupplier nanos;
  private final Supplier<Generator.Status> engine;
  private final Supplier<Streams> streams;

  /**
   * What Kafka Streams is doing.
   *
   * @param running it has joined the group and reads, or shares partitions out anew
   * @param partitions that this worker reads
   * @param sincePoll seconds since the stream thread furthest behind came back to its consumer
   */
  record Streams(boolean running, int partitions, double sincePoll) {}

  /** What the worker itself says. */
  record Situation(Worker.State state, @Nullable String failure, boolean registryDown) {}

  /**
   * @param nanos as {@link System#nanoTime}
   */
  WorkerHealth(
      Duration stuckAfter,
      LongSupplier nanos,
      Supplier<Generator.Status> engine,
      Supplier<Streams> streams) {
    this.stuckAfter = stuckAfter;
    this.nanos = nanos;
    this.engine = engine;
    this.streams = streams;
  }

  Health live(Situation worker) {
    String failure = worker.failure();
    if (failure != null || worker.state() == Worker.State.FAILED) {
      return new Health(false, failure == null ? "FAILED" : failure);
    }
    Generator.Status status = engine.get();
    if (status.failure() != null) {
      return new Health(false, "the engine has failed: " + status.failure());
    }
    Duration idle = Duration.ofNanos(nanos.getAsLong() - status.lastStepNanos());
    int work = status.running() + status.waiting();
    if (work > 0 && idle.compareTo(stuckAfter) > 0) {
      return new Health(false, stuck(status, idle, work));
    }
    Streams now = streams.get();
    if (now.running() && now.sincePoll() * 1e9 > stuckAfter.toNanos()) {
      return new Health(
          false, "a stream thread has not polled for %.0f s".formatted(now.sincePoll()));
    }
    return new Health(true, worker.state().name());
  }

  private String stuck(Generator.Status status, Duration idle, int work) {
    Generator.Held held = status.held();
    if (held != null) {
      Duration since = Duration.ofNanos(nanos.getAsLong() - held.sinceNanos());
      if (since.compareTo(stuckAfter) > 0) {
        return "%d prompts wait for a commit since %d s, and the engine has %d"
            .formatted(held.requests(), since.toSeconds(), work);
      }
    }
    return "the engine has not come on for %d s, and has %d prompts"
        .formatted(idle.toSeconds(), work);
  }

  Health ready(Situation worker) {
    Streams now = streams.get();
    if (worker.state() != Worker.State.RUNNING || !now.running()) {
      return new Health(
          false,
          worker.state() == Worker.State.STARTING
              ? "STARTING: the group has not given it partitions yet"
              : worker.state().name());
    }
    String partitions =
        now.partitions() > 0
            ? now.partitions() + " partitions"
            : "no partitions: there are more workers than partitions, this one stands by";
    return new Health(
        true, "RUNNING, " + partitions + (worker.registryDown() ? ", waits for the registry" : ""));
  }
}
