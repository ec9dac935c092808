package dev.millrace.topology;

import io.opentelemetry.context.Context;
import java.time.Duration;
import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.function.Supplier;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.Producer;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.errors.RecordTooLargeException;
import org.apache.kafka.common.header.internals.RecordHeaders;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Sends replies with a producer and a thread of their own, so that a topic that a request names can
 * hold up neither the stream thread nor its transaction: one without a leader would do so for two
 * minutes, and within a transaction for ever. A reply has no transaction; one that cannot be sent
 * is counted, logged and given up.
 *
 * <p>What is taken and not acknowledged yet is bounded in number and bytes, and each topic has a
 * part of that: one that takes nothing leaves room for the others.
 *
 * <p>The worker makes and closes it. Safe for several threads; producer and admin client belong to
 * its thread and are made with the first reply.
 */
final class BrokerReplies implements ReplyOutbox, AutoCloseable {
  private static final Logger log = LoggerFactory.getLogger(BrokerReplies.class);

  /** How long replies may take to go out when the worker closes. */
  private static final Duration DRAIN = Duration.ofMillis(1_500);

  private static final int DELIVERY_MS = 30_000;
  private static final int REQUEST_MS = 10_000;
  private static final int BLOCK_MS = 1_000;

  /** The least there is. A topic that is not used must not be asked for, nor made by asking. */
  private static final int METADATA_IDLE_MS = 5_000;

  private static final long WARN_EVERY_NANOS = TimeUnit.SECONDS.toNanos(1);

  /** A record's overhead in the producer's buffer. */
  private static final long OVERHEAD = 1_024;

  private static final Reply END =
      new Reply("", -1, new byte[0], null, new RecordHeaders(), Context.root());

  /**
   * How much may be taken and not acknowledged.
   *
   * @param records of all topics
   * @param bytes of all topics, in keys, values and headers
   */
  record Bounds(int records, long bytes) {
    /** Each topic's part of both: one part in so many. */
    private static final int PARTS = 4;

    static Bounds of(WorkerConfig config) {
      return new Bounds(4_096, Math.max(32L << 20, 4L * config.maxPromptBytes()));
    }

    private boolean allow(Held all, Held topic, long size) {
      return all.records < records
          && all.bytes + size <= bytes
          && topic.records < Math.max(1, records / PARTS)
          && (topic.records == 0 || topic.bytes + size <= bytes / PARTS);
    }
  }

  /** Replies that are taken and not acknowledged. */
  private static final class Held {
    private int records;
    private long bytes;

    private void add(int count, long size) {
      records += count;
      bytes += size;
    }
  }

  private final Supplier<Producer<byte[], byte[]>> connect;
  private final ReplyTopics topics;
  private final WorkerMetrics metrics;
  private final Bounds bounds;
  private final LinkedBlockingQueue<Reply> queue = new LinkedBlockingQueue<>();
  private final Held held = new Held();
  private final Map<String, Held> heldByTopic = new HashMap<>();
  private final Thread thread;
  private boolean closing;
  private long nextWarning = System.nanoTime();
  private volatile long closeBy;
  private @Nullable Producer<byte[], byte[]> producer;

  BrokerReplies(
      Supplier<Producer<byte[], byte[]>> connect,
      ReplyTopics topics,
      WorkerMetrics metrics,
      Bounds bounds) {
    this.connect = connect;
    this.topics = topics;
    this.metrics = metrics;
    this.bounds = bounds;
    this.thread = Thread.ofPlatform().name("millrace-replies").daemon().unstarted(this::run);
  }

  /** A worker's, started. */
  static BrokerReplies start(WorkerConfig config, WorkerMetrics metrics) {
    BrokerReplies replies =
        new BrokerReplies(
            () ->
                new KafkaProducer<>(
                    settings(config), new ByteArraySerializer(), new ByteArraySerializer()),
            new BrokerReplyTopics(() -> Admin.create(ClientSettings.admin(config))),
            metrics,
            Bounds.of(config));
    replies.start();
    return replies;
  }

  void start() {
    thread.start();
  }

  /** The worker's own, so far as they do not bear on how long a reply may take. */
  static Map<String, Object> settings(WorkerConfig config) {
    Bounds bounds = Bounds.of(config);
    Map<String, Object> settings = ClientSettings.producer(config);
    settings.put(ProducerConfig.CLIENT_ID_CONFIG, config.applicationId() + "-replies");
    settings.put(ProducerConfig.ENABLE_IDEMPOTENCE_CONFIG, true);
    settings.put(ProducerConfig.RETRIES_CONFIG, Integer.MAX_VALUE);
    settings.put(ProducerConfig.MAX_IN_FLIGHT_REQUESTS_PER_CONNECTION, 5);
    settings.put(ProducerConfig.DELIVERY_TIMEOUT_MS_CONFIG, DELIVERY_MS);
    settings.put(ProducerConfig.REQUEST_TIMEOUT_MS_CONFIG, REQUEST_MS);
    settings.put(ProducerConfig.MAX_BLOCK_MS_CONFIG, BLOCK_MS);
    settings.put(ProducerConfig.METADATA_MAX_IDLE_CONFIG, METADATA_IDLE_MS);
    settings.put(ProducerConfig.LINGER_MS_CONFIG, 0);
    // Each alone: a record that its topic refuses takes the others of its batch with it.
    settings.put(ProducerConfig.BATCH_SIZE_CONFIG, 0);
    // Never full, so that a send waits for no other.
    settings.put(ProducerConfig.BUFFER_MEMORY_CONFIG, bounds.bytes() + bounds.records() * OVERHEAD);
    return settings;
  }

  @Override
  public @Nullable String offer(Reply reply) {
    String problem = topics.problem(reply.topic());
    if (problem != null) {
      metrics.replyRefused(Refusal.TOPIC);
      return problem;
    }
    problem = take(reply);
    if (problem != null) {
      metrics.replyRefused(Refusal.BUSY);
    }
    return problem;
  }

  private synchronized @Nullable String take(Reply reply) {
    if (closing) {
      return "the worker is closing";
    }
    Held topic = heldByTopic.computeIfAbsent(reply.topic(), name -> new Held());
    if (!bounds.allow(held, topic, reply.size())) {
      forgetIfIdle(reply.topic(), topic);
      return "too many replies wait to be sent, %d of them to topic %s"
          .formatted(topic.records, reply.topic());
    }
    held.add(1, reply.size());
    topic.add(1, reply.size());
    queue.add(reply);
    return null;
  }

  private void forgetIfIdle(String name, Held topic) {
    if (topic.records == 0) {
      heldByTopic.remove(name);
    }
  }

  private synchronized void release(Reply reply, long size) {
    held.add(-1, -size);
    Held topic = heldByTopic.get(reply.topic());
    if (topic != null) {
      topic.add(-1, -size);
      forgetIfIdle(reply.topic(), topic);
    }
  }

  private void run() {
    try {
      for (Reply reply = queue.take(); reply != END; reply = queue.take()) {
        // An agent may add headers on the way.
        long size = reply.size();
        try {
          send(reply, size);
        } catch (RuntimeException e) {
          // The next reply has a new producer: this one may have failed for good.
          closeProducer(Duration.ZERO);
          refused(reply, size, Refusal.FAILED, name(e));
        }
      }
    } catch (InterruptedException e) {
      // The worker closes, and has no time left for what still waits.
    } finally {
      closeProducer(Duration.ofNanos(Math.max(0, closeBy - System.nanoTime())));
      topics.close();
      for (Reply reply = queue.poll(); reply != null; reply = queue.poll()) {
        if (reply != END) {
          refused(reply, reply.size(), Refusal.BUSY, "the worker is closing");
        }
      }
    }
  }

  private void send(Reply reply, long size) throws InterruptedException {
    ReplyTopics.Found found;
    try {
      found = topics.find(reply.topic());
    } catch (InterruptedException e) {
      refused(reply, size, Refusal.BUSY, "the worker is closing");
      throw e;
    }
    if (found.problem() != null) {
      refused(reply, size, Refusal.TOPIC, found.problem());
      return;
    }
    if (reply.partition() >= found.partitions()) {
      refused(
          reply,
          size,
          Refusal.TOPIC,
          "%s is %d, but the topic has %d partitions"
              .formatted(Replies.PARTITION, reply.partition(), found.partitions()));
      return;
    }
    if (producer == null) {
      producer = connect.get();
    }
    ProducerRecord<byte[], byte[]> record =
        new ProducerRecord<>(
            reply.topic(),
            reply.partition() < 0 ? null : reply.partition(),
            reply.key(),
            reply.value(),
            reply.headers());
    try (var scope = reply.trace().makeCurrent()) {
      producer.send(record, (metadata, failure) -> ended(reply, size, failure));
    }
  }

  private void ended(Reply reply, long size, @Nullable Exception failure) {
    if (failure == null) {
      metrics.replies.increment();
      release(reply, size);
    } else if (failure instanceof RecordTooLargeException) {
      refused(reply, size, Refusal.TOO_LARGE, "it has " + size + " bytes");
    } else {
      topics.forget(reply.topic());
      refused(reply, size, Refusal.FAILED, name(failure));
    }
  }

  /** Names of exceptions, not their messages, which may quote what was sent. */
  private void refused(Reply reply, long size, Refusal why, String detail) {
    release(reply, size);
    metrics.replyRefused(why);
    if (mayWarn()) {
      log.warn("a reply to topic {} is given up: {} {}", reply.topic(), why.doc(), detail);
    }
  }

  private synchronized boolean mayWarn() {
    long now = System.nanoTime();
    if (now - nextWarning < 0) {
      return false;
    }
    nextWarning = now + WARN_EVERY_NANOS;
    return true;
  }

  private static String name(Exception failure) {
    return failure.getClass().getSimpleName();
  }

  private void closeProducer(Duration timeout) {
    Producer<byte[], byte[]> open = producer;
    producer = null;
    if (open != null) {
      try {
        open.close(timeout);
      } catch (RuntimeException e) {
        log.warn("the producer of replies did not close: {}", name(e));
      }
    }
  }

  /** Sends what it can within a moment, and gives up the rest. */
  @Override
  public void close() {
    synchronized (this) {
      if (closing) {
        return;
      }
      closing = true;
      closeBy = System.nanoTime() + DRAIN.toNanos();
      queue.add(END);
    }
    try {
      if (!thread.join(DRAIN)) {
        thread.interrupt();
        thread.join(DRAIN);
      }
    } catch (InterruptedException e) {
      thread.interrupt();
      Thread.currentThread().interrupt();
    }
  }
}
