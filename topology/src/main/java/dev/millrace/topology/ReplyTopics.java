package dev.millrace.topology;

import org.jspecify.annotations.Nullable;

/** What the topics are like that prompts ask to be answered on. Safe for several threads. */
interface ReplyTopics extends AutoCloseable {
  /**
   * What a look at a topic found.
   *
   * @param problem why it cannot be used; null if it can
   */
  record Found(int partitions, @Nullable String problem) {
    static Found usable(int partitions) {
      return new Found(partitions, null);
    }

    static Found unusable(String problem) {
      return new Found(0, problem);
    }
  }

  /** Looks at a topic, unless that was done a moment ago; may wait for the broker for seconds. */
  Found find(String topic) throws InterruptedException;

  /** Why a look a moment ago found that it cannot be used; null if it did not. Never waits. */
  @Nullable String problem(String topic);

  /** A record for it was not taken: what is known of it may be out of date. */
  void forget(String topic);

  @Override
  void close();
}
