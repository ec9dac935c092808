package dev.millrace.topology;

import org.jspecify.annotations.Nullable;

/**
 * What is known of the topics that prompts ask to be answered on. Nothing here waits, since the
 * stream thread asks. Safe for several threads.
 */
interface ReplyTopics {
  /** Says no to every topic. */
  ReplyTopics NONE =
      new ReplyTopics() {
        @Override
        public Found find(String topic) {
          return Found.unusable("this worker answers on no reply topic");
        }

        @Override
        public void failed(String topic, String why) {
          // It was not used to begin with.
        }
      };

  /**
   * What a look at a topic found.
   *
   * @param maxBytes largest record that it takes, in bytes of key, value and headers
   * @param problem why it cannot be used; null if it can
   */
  record Found(int partitions, long maxBytes, @Nullable String problem) {
    static Found usable(int partitions, long maxBytes) {
      return new Found(partitions, maxBytes, null);
    }

    static Found unusable(String problem) {
      return new Found(0, 0, problem);
    }
  }

  /** What is known of the topic; null: nothing yet, the broker is being asked. */
  @Nullable Found find(String topic);

  /** A record for the topic was refused: it is not used for a while. */
  void failed(String topic, String why);
}
