package dev.millrace.topology.chaos;

import dev.millrace.schemas.PromptEvent;
import dev.millrace.topology.cli.EventClient;
import java.nio.charset.StandardCharsets;
import java.time.Instant;
import java.util.Map;
import java.util.PriorityQueue;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.producer.RecordMetadata;

/**
 * Sends prompts, and the cancels and repetitions that belong to them, each at its time. {@link
 * #run} is for one thread and returns when all is sent; {@link #add} is for any.
 */
final class Sender {
  private static final long LOOK_MS = 50;

  private record Action(long atMs, Runnable what) {}

  private record Sent(Planned plan, Future<RecordMetadata> answer) {}

  private final ChaosOptions options;
  private final Load load;
  private final Books books;
  private final EventClient client;
  private final long startMs;
  private final PriorityQueue<Action> actions =
      new PriorityQueue<>((a, b) -> Long.compare(a.atMs(), b.atMs()));
  private final LinkedBlockingQueue<Sent> unacknowledged = new LinkedBlockingQueue<>();
  private int nextSteady;

  /**
   * @param startMs milliseconds since 1970
   */
  Sender(ChaosOptions options, Load load, Books books, EventClient client, long startMs) {
    this.options = options;
    this.load = load;
    this.books = books;
    this.client = client;
    this.startMs = startMs;
  }

  /** Milliseconds since the start. */
  long now() {
    return System.currentTimeMillis() - startMs;
  }

  synchronized void add(Planned prompt) {
    at(prompt.atMs(), () -> send(prompt));
  }

  private synchronized void at(long atMs, Runnable what) {
    actions.add(new Action(atMs, what));
  }

  void run() throws InterruptedException {
    addSteady();
    while (true) {
      Action due;
      long wait;
      synchronized (this) {
        Action next = actions.peek();
        wait = next == null ? LOOK_MS : next.atMs() - now();
        due = wait <= 0 ? actions.poll() : null;
        if (next == null && now() > options.length().toMillis()) {
          return;
        }
      }
      if (due != null) {
        due.what().run();
      } else {
        acknowledge();
        TimeUnit.MILLISECONDS.sleep(Math.min(wait, LOOK_MS));
      }
    }
  }

  private void addSteady() {
    Planned prompt = load.steady(nextSteady++);
    if (prompt.atMs() < options.length().toMillis()) {
      at(
          prompt.atMs(),
          () -> {
            addSteady();
            send(prompt);
          });
    }
  }

  private void send(Planned prompt) {
    Planned plan = prompt;
    long deadline = prompt.deadlineMs() == 0 ? 0 : startMs + prompt.deadlineMs();
    if (deadline != 0) {
      PromptEvent event =
          PromptEvent.newBuilder(prompt.event())
              .setDeadline(Instant.ofEpochMilli(deadline))
              .build();
      plan =
          new Planned(
              prompt.number(),
              prompt.kind(),
              event,
              prompt.atMs(),
              0,
              prompt.deadlineMs(),
              0,
              null,
              0);
    }
    byte[] value = Load.bytes(plan, client::serialize);
    books.sending(plan, value, deadline);
    byte[] key = plan.id().getBytes(StandardCharsets.UTF_8);
    unacknowledged.add(new Sent(plan, client.send(key, value, Map.of())));
    if (plan.cancelAtMs() != 0) {
      String id = plan.id();
      at(plan.cancelAtMs(), () -> check(client.cancel(id)));
    }
    if (plan.againAtMs() != 0) {
      Planned first = plan;
      at(plan.againAtMs(), () -> check(client.send(Load.again(first))));
    }
  }

  private static void check(Future<RecordMetadata> unused) {
    // Whether a cancel or a repetition arrives changes nothing that is counted.
  }

  /** Enters what the broker has taken. */
  void acknowledge() throws InterruptedException {
    while (true) {
      Sent sent = unacknowledged.peek();
      if (sent == null || !sent.answer().isDone()) {
        return;
      }
      unacknowledged.remove();
      try {
        books.taken(
            sent.plan().number(), sent.answer().get().partition(), sent.answer().get().timestamp());
      } catch (ExecutionException e) {
        books.problem(sent.plan().id() + " was not taken by the broker: " + e.getCause());
      }
    }
  }

  /** Whether the broker has taken, or refused, everything. */
  boolean quiet() {
    return unacknowledged.isEmpty();
  }
}
