package dev.millrace.topology;

import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Proxy;
import java.util.Collection;
import java.util.Map;
import org.apache.kafka.clients.consumer.Consumer;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.streams.processor.internals.DefaultKafkaClientSupplier;

/** Puts the gate around the main consumer under the classic group protocol. */
final class GatedClientSupplier extends DefaultKafkaClientSupplier {
  private final Gate gate;
  private final String promptsTopic;

  GatedClientSupplier(Gate gate, String promptsTopic) {
    this.gate = gate;
    this.promptsTopic = promptsTopic;
  }

  @Override
  public Consumer<byte[], byte[]> getConsumer(Map<String, Object> config) {
    return gated(super.getConsumer(config), gate, promptsTopic);
  }

  /**
   * The consumer with its {@code poll}, {@code pause}, {@code resume} and {@code paused} gated, and
   * the tasks told before their partitions are taken away.
   */
  @SuppressWarnings("unchecked") // The proxy implements the interface that it is cast to.
  static Consumer<byte[], byte[]> gated(
      Consumer<byte[], byte[]> consumer, Gate gate, String promptsTopic) {
    GatedPartitions partitions = new GatedPartitions(gate, promptsTopic, consumer);
    return (Consumer<byte[], byte[]>)
        Proxy.newProxyInstance(
            Consumer.class.getClassLoader(),
            new Class<?>[] {Consumer.class},
            (proxy, method, arguments) -> {
              switch (method.getName()) {
                case "poll" -> partitions.beforePoll();
                case "pause" -> {
                  partitions.pause((Collection<TopicPartition>) arguments[0]);
                  return null;
                }
                case "resume" -> {
                  partitions.resume((Collection<TopicPartition>) arguments[0]);
                  return null;
                }
                case "subscribe" -> {
                  if (arguments.length == 2
                      && arguments[1] instanceof ConsumerRebalanceListener listener) {
                    arguments[1] = partitions.telling(listener);
                  }
                }
                case "paused" -> {
                  return partitions.paused();
                }
                default -> {
                  // Everything else goes through as it is.
                }
              }
              try {
                return method.invoke(consumer, arguments);
              } catch (InvocationTargetException e) {
                throw e.getTargetException();
              }
            });
  }
}
