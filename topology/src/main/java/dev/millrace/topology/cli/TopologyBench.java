package dev.millrace.topology.cli;

import dev.millrace.schemas.AvroSerializer;
import dev.millrace.schemas.MessageRole;
import dev.millrace.schemas.PromptEvent;
import dev.millrace.schemas.PromptMessage;
import dev.millrace.schemas.PromptSampling;
import dev.millrace.topology.WorkerConfig;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.LockSupport;
import java.util.function.IntUnaryOperator;
import java.util.function.LongConsumer;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** The client's side of the topology's benchmark. For one thread. */
final class TopologyBench {
  private static final int WARM_UP = 20_000;
  private static final Duration PATIENCE = Duration.ofMinutes(5);

  private final WorkerConfig config;
  private final IntUnaryOperator tokens;
  private int made;
  private long sent;
  private Answers answers = new Answers();

  /**
   * @param tokens of the answer to the prompt of a number
   */
  TopologyBench(WorkerConfig config, IntUnaryOperator tokens) {
    this.config = config;
    this.tokens = tokens;
  }

  WorkerConfig config() {
    return config;
  }

  /** Prompts that were sent to the topic. */
  long sent() {
    return sent;
  }

  /** The completions, as they were read last. */
  Answers answers() {
    return answers;
  }

  /** Sends and reads until the just-in-time compiler has seen the whole way. */
  void warmUp() throws InterruptedException {
    preload(WARM_UP);
    try (KafkaConsumer<byte[], byte[]> consumer = consumer(config.topics().completions())) {
      readAnswers(consumer);
    }
  }

  /** Puts prompts on the topic as fast as the broker takes them. */
  void preload(int prompts) {
    try (KafkaProducer<byte[], byte[]> producer = producer(20);
        AvroSerializer<PromptEvent> serializer = serializer()) {
      for (int i = 0; i < prompts; i++) {
        var unused = producer.send(record(serializer, "load-" + sent++));
      }
      producer.flush();
    }
  }

  /**
   * Waits until all prompts are answered.
   *
   * @param prompts how many of them are new
   * @return how many a second, from the first answer to the last
   */
  double drain(int prompts) throws InterruptedException {
    try (KafkaConsumer<byte[], byte[]> consumer = consumer(config.topics().completions())) {
      List<TopicPartition> partitions = new ArrayList<>(consumer.assignment());
      long before = answers.prompts();
      long start = 0;
      long first = 0;
      long deadline = System.nanoTime() + PATIENCE.toNanos();
      while (true) {
        // The ends of the log tell without reading it: a reader would take a core from the worker.
        long there = consumer.endOffsets(partitions).values().stream().mapToLong(l -> l).sum();
        long now = System.nanoTime();
        if (start == 0 && there > before) {
          start = now;
          first = there;
        }
        if (there >= before + prompts || now > deadline) {
          readAnswers(consumer);
          return (there - first) / ((now - start) / 1e9);
        }
        TimeUnit.MILLISECONDS.sleep(20);
      }
    }
  }

  /**
   * Looks at the answers until there are as many as prompts, or no more come.
   *
   * @param look gets how many there are, every so often and at the end
   */
  void follow(int prompts, Duration every, LongConsumer look) throws InterruptedException {
    try (KafkaConsumer<byte[], byte[]> consumer = consumer(config.topics().completions())) {
      List<TopicPartition> partitions = new ArrayList<>(consumer.assignment());
      long last = 0;
      long lastNews = System.nanoTime();
      while (true) {
        Thread.sleep(every);
        long there = consumer.endOffsets(partitions).values().stream().mapToLong(l -> l).sum();
        look.accept(there);
        lastNews = there > last ? System.nanoTime() : lastNews;
        last = there;
        if (there >= prompts || System.nanoTime() - lastNews > PATIENCE.toNanos()) {
          readAnswers(consumer);
          return;
        }
      }
    }
  }

  private void readAnswers(KafkaConsumer<byte[], byte[]> consumer) {
    consumer.seekToBeginning(consumer.assignment());
    Answers all = new Answers();
    long deadline = System.nanoTime() + PATIENCE.toNanos();
    while (all.prompts() < sent && System.nanoTime() < deadline) {
      consumer.poll(Duration.ofMillis(200)).forEach(record -> all.take(record.key()));
    }
    // What comes twice comes soon after.
    consumer.poll(Duration.ofMillis(500)).forEach(record -> all.take(record.key()));
    answers = all;
  }

  /**
   * Milliseconds from sending a prompt to having its completion.
   *
   * @param rate prompts a second
   */
  double[] latencies(int rate, int seconds) throws ExecutionException, InterruptedException {
    return measure(config.topics().completions(), config.topics().prompts(), rate, seconds);
  }

  /** The same for a record that goes to the broker and straight back. */
  double[] roundTrips(int rate, int seconds) throws ExecutionException, InterruptedException {
    return measure(config.topics().cancels(), config.topics().cancels(), rate, seconds);
  }

  private double[] measure(String from, String to, int rate, int seconds)
      throws ExecutionException, InterruptedException {
    int count = rate * seconds;
    Map<String, Long> starts = new HashMap<>();
    List<Double> millis = new ArrayList<>();
    try (KafkaConsumer<byte[], byte[]> consumer = consumer(from);
        KafkaProducer<byte[], byte[]> producer = producer(0);
        AvroSerializer<PromptEvent> serializer = serializer()) {
      consumer.seekToEnd(consumer.assignment());
      consumer.assignment().forEach(consumer::position);
      String run = "latency-" + from + "-" + to + "-";
      // The first ones find connections and ids.
      int warm = rate;
      long begin = System.nanoTime();
      for (int i = 0; i < count + warm || !starts.isEmpty(); ) {
        long due = begin + i * 1_000_000_000L / rate;
        if (i < count + warm && System.nanoTime() >= due) {
          String id = run + i;
          ProducerRecord<byte[], byte[]> record = record(serializer, to, id);
          starts.put(id, System.nanoTime());
          var unused = producer.send(record);
          i++;
          if (to.equals(config.topics().prompts())) {
            sent++;
          }
        }
        for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(1))) {
          Long start = starts.remove(new String(record.key(), StandardCharsets.UTF_8));
          if (start != null && millis.size() < count + warm) {
            millis.add((System.nanoTime() - start) / 1e6);
          }
        }
        if (System.nanoTime() - begin > PATIENCE.toNanos()) {
          throw new Failures.CommandFailedException(starts.size() + " prompts have no completion");
        }
        LockSupport.parkNanos(50_000);
      }
      return millis.stream().skip(warm).mapToDouble(d -> d).toArray();
    }
  }

  private ProducerRecord<byte[], byte[]> record(AvroSerializer<PromptEvent> serializer, String id) {
    return record(serializer, config.topics().prompts(), id);
  }

  private ProducerRecord<byte[], byte[]> record(
      AvroSerializer<PromptEvent> serializer, String topic, String id) {
    PromptEvent prompt =
        PromptEvent.newBuilder()
            .setId(id)
            .setMessages(
                List.of(
                    PromptMessage.newBuilder()
                        .setRole(MessageRole.USER)
                        .setContent("What is the answer to question " + id + "?")
                        .build()))
            .setSampling(
                PromptSampling.newBuilder().setMaxTokens(tokens.applyAsInt(made++)).build())
            .build();
    return new ProducerRecord<>(
        topic,
        id.getBytes(StandardCharsets.UTF_8),
        serializer.serialize(config.topics().prompts(), prompt));
  }

  private AvroSerializer<PromptEvent> serializer() {
    AvroSerializer<PromptEvent> serializer = new AvroSerializer<>();
    serializer.configure(config.serdeSettings(), false);
    return serializer;
  }

  private KafkaProducer<byte[], byte[]> producer(int lingerMs) {
    return new KafkaProducer<>(
        Map.of(
            "bootstrap.servers",
            config.bootstrapServers(),
            "acks",
            "all",
            "linger.ms",
            lingerMs,
            "batch.size",
            131072),
        new ByteArraySerializer(),
        new ByteArraySerializer());
  }

  private KafkaConsumer<byte[], byte[]> consumer(String topic) {
    KafkaConsumer<byte[], byte[]> consumer =
        new KafkaConsumer<>(
            Map.of(
                "bootstrap.servers", config.bootstrapServers(),
                "isolation.level", "read_committed",
                "auto.offset.reset", "earliest"),
            new ByteArrayDeserializer(),
            new ByteArrayDeserializer());
    consumer.assign(
        consumer.partitionsFor(topic).stream()
            .map(p -> new TopicPartition(topic, p.partition()))
            .toList());
    return consumer;
  }
}
