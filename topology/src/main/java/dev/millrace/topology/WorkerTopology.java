package dev.millrace.topology;

import dev.millrace.topology.Output.Sink;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.streams.AutoOffsetReset;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.processor.TimestampExtractor;

/**
 * The topology: a pure function of the settings. Prompts and cancels come in as bytes, so that a
 * bad record is ours to deal with, and go through one processor, so that both see the same stores;
 * completions, tool calls, chunks and dead letters go out. Replies go beside it ({@link
 * ReplyOutbox}).
 */
final class WorkerTopology {
  private static final String PROMPTS = "prompts-in";
  private static final String CANCELS = "cancels-in";
  private static final String PROCESSOR = "answer";

  private WorkerTopology() {}

  static Topology of(Services services) {
    Topics.Names topics = services.config().topics();
    Topology topology = new Topology();
    source(topology, PROMPTS, topics.prompts());
    source(topology, CANCELS, topics.cancels());
    topology.addProcessor(PROCESSOR, PromptProcessor.supplier(services), PROMPTS, CANCELS);
    for (Sink sink : Sink.values()) {
      topology.addSink(
          sink.node(),
          sink.topic(topics),
          new ByteArraySerializer(),
          new ByteArraySerializer(),
          PROCESSOR);
    }
    return topology;
  }

  private static void source(Topology topology, String name, String topic) {
    topology.addSource(
        AutoOffsetReset.earliest(),
        name,
        new ClampedTimestamps(),
        new ByteArrayDeserializer(),
        new ByteArrayDeserializer(),
        topic);
  }

  /**
   * A record's timestamp, if it is between 1970 and now. The store's changelog takes it over, and a
   * broker refuses timestamps far in the future: one such record would end the thread again and
   * again.
   */
  static final class ClampedTimestamps implements TimestampExtractor {
    @Override
    public long extract(ConsumerRecord<Object, Object> record, long partitionTime) {
      return Math.clamp(record.timestamp(), 0, System.currentTimeMillis());
    }
  }
}
