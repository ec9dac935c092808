package dev.millrace.topology;

import dev.millrace.topology.Output.Sink;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.jspecify.annotations.Nullable;

/**
 * Makes dead letters: the prompt's record with its own key, value and headers, and after them the
 * headers that Kafka Streams' own dead letters have (KIP-1034), a reason for machines and a message
 * for people. {@link DeadLetter} reads them back.
 */
public final class DeadLetters {
  /**
   * Why a prompt ended as a dead letter; the header {@code millrace.reason}. Names stay as they
   * are: people filter by them.
   */
  public enum Reason {
    NO_VALUE("The record has no value."),
    RECORD_TOO_LARGE("The record exceeds `max.prompt.bytes`."),
    BAD_RECORD("The bytes are no event: framing, schema or data."),
    INVALID_REQUEST("The event asks for something impossible; the message says what."),
    PROMPT_TOO_LONG("Prompt and answer do not fit into the model's context."),
    UNSUPPORTED("Asks for something that this worker does not have."),
    MODEL_NOT_SERVED("Asks for a model that this worker does not serve."),
    ENGINE_FAILED("The engine failed it `engine.attempts` times."),
    CRASHED("The worker crashed `max.crash.attempts` times while it ran alone."),
    ANSWER_TOO_LARGE("The answer, or a chunk of it, does not fit into a record of its topic."),
    INTERNAL("A defect of the worker; its log and the stack trace say more.");

    private final String doc;

    Reason(String doc) {
      this.doc = doc;
    }

    /** One sentence for people. */
    public String doc() {
      return doc;
    }
  }

  static final String REASON = "millrace.reason";
  static final String PROMPT_ID = "millrace.prompt.id";
  static final String OMITTED = "millrace.value.omitted";
  static final String EXCEPTION = "__streams.errors.exception";
  static final String MESSAGE = "__streams.errors.message";
  static final String STACKTRACE = "__streams.errors.stacktrace";
  static final String TOPIC = "__streams.errors.topic";
  static final String PARTITION = "__streams.errors.partition";
  static final String OFFSET = "__streams.errors.offset";

  /** What a reply says of a prompt that became a dead letter. */
  static final Set<String> FOR_REPLIES = Set.of(REASON, PROMPT_ID, MESSAGE);

  private static final int LONGEST_MESSAGE = 4_096;
  private static final int LONGEST_TRACE = 16_384;

  private DeadLetters() {}

  /**
   * The headers of a dead letter, without the prompt's own.
   *
   * @param id of the prompt, if it is known
   * @param cause of which class and stack trace are shown; null if there is no exception
   */
  static Output of(
      PromptRecord record,
      @Nullable String id,
      Reason reason,
      String message,
      @Nullable Throwable cause) {
    List<Header> headers = new ArrayList<>();
    headers.add(header(REASON, reason.name()));
    if (id != null) {
      headers.add(header(PROMPT_ID, cut(id, LONGEST_MESSAGE)));
    }
    headers.add(header(EXCEPTION, cause == null ? "" : cause.getClass().getName()));
    headers.add(header(MESSAGE, cut(message, LONGEST_MESSAGE)));
    headers.add(header(STACKTRACE, cause == null ? "" : trace(cause)));
    headers.add(header(TOPIC, record.topic()));
    headers.add(header(PARTITION, Integer.toString(record.partition())));
    headers.add(header(OFFSET, Long.toString(record.offset())));
    return new Output(Sink.DEAD_LETTER, headers, null);
  }

  static Header header(String name, String value) {
    return new RecordHeader(name, value.getBytes(StandardCharsets.UTF_8));
  }

  private static String trace(Throwable cause) {
    StringWriter out = new StringWriter();
    cause.printStackTrace(new PrintWriter(out));
    return cut(out.toString(), LONGEST_TRACE);
  }

  private static String cut(String text, int length) {
    return text.length() <= length ? text : text.substring(0, length) + "…";
  }
}
