package dev.millrace.topology.cli;

import dev.millrace.schemas.AvroDeserializer;
import dev.millrace.schemas.AvroSerializer;
import dev.millrace.schemas.BadRecordException;
import dev.millrace.schemas.CancelEvent;
import dev.millrace.schemas.ChunkEvent;
import dev.millrace.schemas.CompletionEvent;
import dev.millrace.schemas.PromptEvent;
import dev.millrace.schemas.ToolCallEvent;
import dev.millrace.topology.ClientSettings;
import dev.millrace.topology.DeadLetter;
import dev.millrace.topology.Topics;
import dev.millrace.topology.WorkerConfig;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Future;
import org.apache.avro.specific.SpecificRecord;
import org.apache.kafka.clients.consumer.Consumer;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.Producer;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.Headers;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.jspecify.annotations.Nullable;

/**
 * The other side of a worker: sends prompts and reads what comes of them, from the moment it is
 * made. Whoever makes it closes it. {@link #send} is thread-safe, {@link #poll} is for one thread.
 */
public final class EventClient implements AutoCloseable {
  private static final Duration METADATA_TIMEOUT = Duration.ofSeconds(15);

  private final Topics.Names topics;
  private final Producer<byte[], byte[]> producer;
  private final Consumer<byte[], byte[]> consumer;
  private final AvroSerializer<SpecificRecord> serializer = new AvroSerializer<>();
  private final AvroDeserializer<SpecificRecord> deserializer = new AvroDeserializer<>();

  /** Something that a worker wrote. */
  public sealed interface Outcome {
    /** The record that it was read from. */
    ConsumerRecord<byte[], byte[]> source();

    /** The answer to a prompt. */
    record Completion(CompletionEvent event, ConsumerRecord<byte[], byte[]> source)
        implements Outcome {}

    /** One call of an answer. */
    record ToolCall(ToolCallEvent event, ConsumerRecord<byte[], byte[]> source)
        implements Outcome {}

    /** A piece of a streamed answer. */
    record Chunk(ChunkEvent event, ConsumerRecord<byte[], byte[]> source) implements Outcome {}

    /**
     * A prompt that cannot be answered.
     *
     * @param key of the prompt's record, as text; our own prompts have their id there
     * @param reason why
     */
    record DeadLetter(String key, String reason, ConsumerRecord<byte[], byte[]> source)
        implements Outcome {}
  }

  /**
   * Connects to the broker and the registry of a worker's settings.
   *
   * @throws org.apache.kafka.common.KafkaException if the broker does not answer, or a topic is
   *     missing
   */
  public EventClient(WorkerConfig config) {
    topics = config.topics();
    serializer.configure(config.serdeSettings(), false);
    deserializer.configure(config.serdeSettings(), false);
    Map<String, Object> sending = ClientSettings.producer(config);
    sending.putIfAbsent(ProducerConfig.LINGER_MS_CONFIG, "0");
    producer = new KafkaProducer<>(sending, new ByteArraySerializer(), new ByteArraySerializer());
    Map<String, Object> reading = ClientSettings.consumer(config);
    reading.put(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest");
    consumer =
        new KafkaConsumer<>(reading, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    try {
      listenFromNow();
    } catch (RuntimeException e) {
      close();
      throw e;
    }
  }

  private void listenFromNow() {
    List<TopicPartition> partitions = new ArrayList<>();
    for (String topic :
        List.of(topics.completions(), topics.toolCalls(), topics.chunks(), topics.deadLetters())) {
      consumer
          .partitionsFor(topic, METADATA_TIMEOUT)
          .forEach(p -> partitions.add(new TopicPartition(topic, p.partition())));
    }
    consumer.assign(partitions);
    consumer.seekToEnd(partitions);
    // The seek is lazy: without this an answer that comes before the first poll would be missed.
    partitions.forEach(p -> consumer.position(p, METADATA_TIMEOUT));
  }

  /** Goes back to the first record of each topic. */
  public void rewind() {
    consumer.seekToBeginning(consumer.assignment());
  }

  /** Sends a prompt with its id as the record's key. */
  public Future<RecordMetadata> send(PromptEvent prompt) {
    return send(
        prompt.getId().getBytes(StandardCharsets.UTF_8),
        serializer.serialize(topics.prompts(), prompt),
        Map.of());
  }

  /** Asks for a prompt that was sent with its id as the key to end early. */
  public Future<RecordMetadata> cancel(String id) {
    return producer.send(
        new ProducerRecord<>(
            topics.cancels(),
            id.getBytes(StandardCharsets.UTF_8),
            serializer.serialize(
                topics.cancels(), CancelEvent.newBuilder().setPromptId(id).build())));
  }

  /** Sends a record that need not be a prompt at all. */
  public Future<RecordMetadata> send(
      byte @Nullable [] key, byte @Nullable [] value, Map<String, byte[]> headers) {
    ProducerRecord<byte[], byte[]> record = new ProducerRecord<>(topics.prompts(), key, value);
    headers.forEach((name, bytes) -> record.headers().add(name, bytes));
    return producer.send(record);
  }

  /** A prompt's bytes as {@link #send(PromptEvent)} sends them. */
  public byte[] serialize(PromptEvent prompt) {
    byte[] bytes = serializer.serialize(topics.prompts(), prompt);
    return bytes == null ? new byte[0] : bytes;
  }

  /** What has come since the last time; waits up to {@code timeout} for the first. */
  public List<Outcome> poll(Duration timeout) {
    List<Outcome> outcomes = new ArrayList<>();
    for (ConsumerRecord<byte[], byte[]> record : consumer.poll(timeout)) {
      if (DeadLetter.replayedOffset(record) < 0) {
        outcomes.add(outcome(record));
      }
    }
    return outcomes;
  }

  private Outcome outcome(ConsumerRecord<byte[], byte[]> record) {
    if (record.topic().equals(topics.deadLetters())) {
      String key = record.key() == null ? "" : new String(record.key(), StandardCharsets.UTF_8);
      return new Outcome.DeadLetter(key, reason(record.headers()), record);
    }
    SpecificRecord event =
        deserializer.deserialize(record.topic(), record.headers(), record.value());
    return switch (event) {
      case CompletionEvent completion -> new Outcome.Completion(completion, record);
      case ToolCallEvent call -> new Outcome.ToolCall(call, record);
      case ChunkEvent chunk -> new Outcome.Chunk(chunk, record);
      case null, default ->
          throw new BadRecordException(
              record.topic() + " holds something that no worker writes there: " + event);
    };
  }

  private static String reason(Headers headers) {
    Map<String, String> texts = new HashMap<>();
    for (Header header : headers) {
      if (header.value() != null) {
        texts.put(header.key(), new String(header.value(), StandardCharsets.UTF_8));
      }
    }
    return texts.getOrDefault("__streams.errors.message", "no reason given");
  }

  @Override
  public void close() {
    producer.close(Duration.ofSeconds(5));
    consumer.close();
    serializer.close();
    deserializer.close();
  }
}
