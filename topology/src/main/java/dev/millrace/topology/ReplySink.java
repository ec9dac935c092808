package dev.millrace.topology;

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.Optional;
import java.util.Set;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.Headers;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.serialization.Serializer;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.processor.StreamPartitioner;
import org.apache.kafka.streams.processor.TopicNameExtractor;
import org.apache.kafka.streams.processor.api.ContextualProcessor;
import org.apache.kafka.streams.processor.api.Record;
import org.jspecify.annotations.Nullable;

/**
 * The part of the topology that sends replies to the topic and partition that each names. A sink's
 * partitioner sees no headers, so the address travels with the key on the last step.
 */
final class ReplySink {
  /** The node that takes records that {@link #address} has prepared. */
  static final String NODE = "replies";

  private static final String SINK = "replies-out";

  private record Address(String topic, int partition, byte @Nullable [] key) {}

  private ReplySink() {}

  /**
   * Says where a record for {@link #NODE} goes.
   *
   * @param partition -1: as the key decides
   */
  static void address(Headers headers, String topic, int partition) {
    headers.remove(Replies.TOPIC).add(Replies.TOPIC, topic.getBytes(StandardCharsets.UTF_8));
    headers
        .remove(Replies.PARTITION)
        .add(Replies.PARTITION, ByteBuffer.allocate(Integer.BYTES).putInt(partition).array());
  }

  static void add(Topology topology, String parent) {
    ByteArraySerializer bytes = new ByteArraySerializer();
    Serializer<Address> key = (topic, address) -> bytes.serialize(topic, address.key());
    TopicNameExtractor<Address, byte[]> topic = (address, value, context) -> address.topic();
    StreamPartitioner<Address, byte[]> partition =
        (name, address, value, partitions) ->
            address.partition() < 0 || address.partition() >= partitions
                ? Optional.empty()
                : Optional.of(Set.of(address.partition()));
    topology.addProcessor(NODE, Addressing::new, parent);
    topology.addSink(SINK, topic, key, bytes, partition, NODE);
  }

  private static final class Addressing
      extends ContextualProcessor<byte[], byte[], Address, byte[]> {
    @Override
    public void process(Record<byte[], byte[]> record) {
      Headers headers = record.headers();
      Header topic = headers.lastHeader(Replies.TOPIC);
      Header partition = headers.lastHeader(Replies.PARTITION);
      if (topic == null || partition == null) {
        throw new IllegalStateException("a reply without an address");
      }
      Address address =
          new Address(
              new String(topic.value(), StandardCharsets.UTF_8),
              ByteBuffer.wrap(partition.value()).getInt(),
              record.key());
      headers.remove(Replies.TOPIC).remove(Replies.PARTITION);
      context().forward(record.withKey(address));
    }
  }
}
