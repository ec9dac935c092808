package dev.millrace.topology;

import java.util.ArrayList;
import java.util.List;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.jspecify.annotations.Nullable;

/**
 * The headers of a prompt that go on to everything that comes of it: the trace it belongs to, and
 * the id by which its sender finds the answer.
 */
final class Carried {
  static final String CORRELATION = "kafka_correlationId";

  /** Longest correlation id that is echoed, bytes: it is copied to every chunk. */
  static final int MOST_CORRELATION = 1_024;

  private static final List<String> TRACE = List.of("traceparent", "tracestate", "baggage");

  /** Most bytes of trace context, for the same reason. */
  private static final int MOST_TRACE = 8 * 1024;

  private Carried() {}

  static List<Header> of(PromptRecord record) {
    if (record.headers().isEmpty()) {
      return List.of();
    }
    List<Header> carried = trace(record);
    byte[] correlation = last(record.headers(), CORRELATION);
    if (correlation != null && correlation.length <= MOST_CORRELATION) {
      carried.add(new RecordHeader(CORRELATION, correlation));
    }
    return carried;
  }

  /** The trace context alone; none of it where it is too long. */
  static List<Header> trace(PromptRecord record) {
    List<Header> carried = new ArrayList<>(TRACE.size() + 1);
    for (String name : TRACE) {
      byte[] value = last(record.headers(), name);
      if (value != null) {
        carried.add(new RecordHeader(name, value));
      }
    }
    if (PromptRecord.headerBytes(carried) > MOST_TRACE) {
      carried.clear();
    }
    return carried;
  }

  /** The value of the last header of that name. */
  static byte @Nullable [] last(List<Header> headers, String name) {
    for (int i = headers.size() - 1; i >= 0; i--) {
      if (headers.get(i).key().equals(name)) {
        return headers.get(i).value();
      }
    }
    return null;
  }
}
