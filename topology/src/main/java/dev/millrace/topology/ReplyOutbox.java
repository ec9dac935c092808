package dev.millrace.topology;

import io.opentelemetry.context.Context;
import org.apache.kafka.common.header.Headers;
import org.jspecify.annotations.Nullable;

/**
 * Takes replies from the stream thread and sends them beside it. Nothing here waits. Safe for
 * several threads.
 */
interface ReplyOutbox {
  /** Takes no reply. */
  ReplyOutbox NONE = reply -> "this worker answers on no reply topic";

  /**
   * A reply on its way.
   *
   * @param partition -1: as the key decides
   * @param headers its own, which nobody else changes
   * @param trace what is current where it was made
   */
  record Reply(
      String topic,
      int partition,
      byte[] key,
      byte @Nullable [] value,
      Headers headers,
      Context trace) {
    /** Bytes that it takes on the wire, nearly. */
    long size() {
      return key.length + (value == null ? 0L : value.length) + PromptRecord.headerBytes(headers);
    }
  }

  /** Why a reply that was asked for did not go out; a label of a metric, so names stay. */
  enum Refusal {
    /** The request names no topic or partition that it may. */
    ADDRESS("Its request names no topic or partition that it may."),

    /** The topic is not there, or cannot be looked up. */
    TOPIC("The topic is not there, has no such partition, or cannot be looked up."),

    /** The topic takes no record of that size. */
    TOO_LARGE("The topic takes no record of that size."),

    /** Too many wait, for that topic or at all, or the worker closes. */
    BUSY("Too many replies wait, for that topic or at all, or the worker closes."),

    /** The broker did not take it. */
    FAILED("The broker did not take it, or not in time.");

    private final String doc;

    Refusal(String doc) {
      this.doc = doc;
    }

    /** One sentence for people. */
    String doc() {
      return doc;
    }
  }

  /**
   * Takes a reply, which then goes out or is counted as refused.
   *
   * @return why it was not taken, which is counted; null if it was
   */
  @Nullable String offer(Reply reply);
}
