package dev.millrace.topology.cli;

import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.millrace.topology.ClientSettings;
import dev.millrace.topology.DeadLetter;
import dev.millrace.topology.WorkerConfig;
import java.io.PrintWriter;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.Producer;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.errors.UnknownTopicOrPartitionException;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.jspecify.annotations.Nullable;

/**
 * Sends dead letters back, a batch at a time: the records first, and when the broker has them their
 * marks, so that what is cut off in between is repeated and never left out. Whoever makes it closes
 * it; for one thread.
 */
final class Replay implements AutoCloseable {
  private static final int BATCH_RECORDS = 64;
  private static final long BATCH_BYTES = 16L << 20;

  private final WorkerConfig config;
  private final Way way;
  private final PrintWriter out;
  private final PrintWriter err;
  private final Producer<byte[], byte[]> producer;

  /** Partitions of each topic that was asked for; 0: there is no such topic. */
  private final Map<String, Integer> partitions = new HashMap<>();

  private final List<Sent> batch = new ArrayList<>();
  private long batchBytes;
  private long replayed;
  private long refused;
  private long before;

  /**
   * How to replay.
   *
   * @param to the topic; null: where each was read
   * @param again those that were replayed before, too
   */
  record Way(@Nullable String to, boolean dryRun, boolean again, boolean json) {}

  private record Sent(DeadLetter letter, Future<RecordMetadata> result) {}

  Replay(WorkerConfig config, Way way, PrintWriter out, PrintWriter err) {
    this.config = config;
    this.way = way;
    this.out = out;
    this.err = err;
    this.producer =
        new KafkaProducer<>(
            ClientSettings.producer(config), new ByteArraySerializer(), new ByteArraySerializer());
  }

  /** Takes a dead letter; says whether it is one to replay, be it sent or refused. */
  boolean take(DeadLetter letter, boolean wasReplayed) {
    if (wasReplayed && !way.again()) {
      before++;
      return false;
    }
    String to = way.to();
    String target = to != null ? to : letter.source();
    String problem = problem(letter, target);
    if (problem != null) {
      refused++;
      err.println(
          "refused   " + Letters.place(letter) + "  " + Letters.name(letter) + ": " + problem);
      err.flush();
      return true;
    }
    if (way.dryRun()) {
      replayed++;
      say(letter, target, "would replay");
      return true;
    }
    int into = partitions.getOrDefault(target, 0);
    batch.add(new Sent(letter, producer.send(letter.original(target, into))));
    batchBytes += letter.size();
    if (batch.size() >= BATCH_RECORDS || batchBytes >= BATCH_BYTES) {
      flush();
    }
    return true;
  }

  private @Nullable String problem(DeadLetter letter, String target) {
    if (letter.omitted() >= 0) {
      return ("its value is not here: the record of %d bytes was too large for %s, see %s-%d@%d;"
              + " send it again from where it came, or raise max.prompt.bytes and the topics'"
              + " max.message.bytes first")
          .formatted(
              letter.omitted(),
              config.topics().deadLetters(),
              letter.source(),
              letter.sourcePartition(),
              letter.sourceOffset());
    }
    if (target.equals(config.topics().deadLetters())) {
      return "a dead letter cannot be replayed to the dead letters' own topic";
    }
    if (way.to() == null && !target.equals(config.topics().prompts())) {
      return "it came from topic '%s', and the prompts of this configuration are on %s: say --to"
          .formatted(target, config.topics().prompts());
    }
    return partitions.computeIfAbsent(target, this::partitions) > 0
        ? null
        : "the broker has no topic " + target;
  }

  /** Asked first, since some brokers make every topic that a producer names. */
  private int partitions(String topic) {
    try (Admin admin = Admin.create(ClientSettings.admin(config))) {
      return admin.describeTopics(List.of(topic)).allTopicNames().get().values().stream()
          .mapToInt(description -> description.partitions().size())
          .sum();
    } catch (ExecutionException e) {
      if (e.getCause() instanceof UnknownTopicOrPartitionException
          || e.getCause() instanceof org.apache.kafka.common.errors.InvalidTopicException) {
        return 0;
      }
      throw new Failures.CommandFailedException(
          "cannot look up topic " + topic + ": " + Failures.describe(e.getCause()), e);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new Failures.CommandFailedException("interrupted", e);
    }
  }

  /** Waits until the broker has what was sent, and marks it. */
  void flush() {
    if (batch.isEmpty()) {
      return;
    }
    List<Sent> sent = List.copyOf(batch);
    batch.clear();
    batchBytes = 0;
    List<Future<RecordMetadata>> marks = new ArrayList<>();
    String failure = null;
    for (Sent one : sent) {
      try {
        RecordMetadata at = one.result().get();
        String to = at.topic() + "-" + at.partition() + "@" + at.offset();
        marks.add(
            producer.send(one.letter().mark(config.topics().deadLetters(), to, Instant.now())));
        replayed++;
        say(one.letter(), to, "replayed");
      } catch (ExecutionException e) {
        failure = Letters.place(one.letter()) + ": " + Failures.describe(e.getCause());
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
        failure = "interrupted";
      }
    }
    for (Future<RecordMetadata> mark : marks) {
      try {
        mark.get();
      } catch (ExecutionException e) {
        failure = "a replayed record cannot be marked: " + Failures.describe(e.getCause());
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
        failure = "interrupted";
      }
    }
    out.flush();
    if (failure != null) {
      throw new Failures.CommandFailedException(
          "replayed %d, then failed: %s".formatted(replayed, failure));
    }
  }

  private void say(DeadLetter letter, String to, String what) {
    if (way.json()) {
      ObjectNode node = Letters.json(letter, !way.dryRun());
      node.put("to", to);
      out.println(node);
    } else {
      out.println(what + "  " + Letters.place(letter) + "  " + Letters.name(letter) + "  -> " + to);
    }
  }

  /** Says how it went; the command's exit code. */
  int summary() {
    PrintWriter to = way.json() ? err : out;
    to.printf(
        "%s %d, refused %d, replayed before %d%n",
        way.dryRun() ? "would replay" : "replayed", replayed, refused, before);
    to.flush();
    return refused == 0 ? 0 : Failures.FAILED;
  }

  @Override
  public void close() {
    producer.close(Duration.ofSeconds(10));
  }
}
