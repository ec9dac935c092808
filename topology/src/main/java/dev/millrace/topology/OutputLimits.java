package dev.millrace.topology;

import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;

/**
 * The largest record that each output topic takes, in bytes of key, value and headers. What is
 * larger is never sent: it would end the thread, or the transaction. Safe for several threads.
 */
final class OutputLimits {
  /** A record's own overhead, and that of a batch that holds it alone. */
  private static final int RECORD_OVERHEAD = 512;

  private final int most;
  private final Map<String, Integer> topics = new ConcurrentHashMap<>();

  OutputLimits(int most) {
    this.most = most;
  }

  int of(String topic) {
    return topics.getOrDefault(topic, most);
  }

  /** A topic's own limit on batches ({@code max.message.bytes}). */
  void topicTakes(String topic, long maxMessageBytes) {
    topics.put(topic, (int) Math.max(1, Math.min(most, maxMessageBytes - RECORD_OVERHEAD)));
  }

  /** A record of this size was refused: the topic takes less than was known. */
  void refused(String topic, long bytes) {
    topics.merge(topic, (int) Math.max(1, Math.min(most, bytes - 1)), Math::min);
  }
}
