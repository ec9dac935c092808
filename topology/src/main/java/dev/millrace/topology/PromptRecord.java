package dev.millrace.topology;

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.List;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.jspecify.annotations.Nullable;

/**
 * A prompt's record as it was read: all that is needed to answer it, or to set it aside unchanged,
 * when the record itself is long out of reach.
 *
 * @param timestamp of the record, milliseconds since 1970
 * @param acceptedAt when the worker took it up, milliseconds since 1970
 */
record PromptRecord(
    String topic,
    int partition,
    long offset,
    long timestamp,
    long acceptedAt,
    byte @Nullable [] key,
    List<Header> headers,
    byte @Nullable [] value) {
  private static final byte VERSION = 1;
  private static final int FIXED_BYTES = 1 + 2 + 4 + 8 + 8 + 8 + 4 + 4 + 4;

  PromptRecord {
    headers = List.copyOf(headers);
  }

  /** Without its value, which the store holds as well. */
  PromptRecord withoutValue() {
    return new PromptRecord(topic, partition, offset, timestamp, acceptedAt, key, headers, null);
  }

  /** Bytes that it takes on the wire, nearly: key, value, headers. */
  long size() {
    return (key == null ? 0 : key.length)
        + (value == null ? 0L : value.length)
        + headerBytes(headers);
  }

  static long headerBytes(Iterable<Header> headers) {
    long bytes = 0;
    for (Header header : headers) {
      byte[] value = header.value();
      bytes += 3L * header.key().length() + (value == null ? 0 : value.length) + 4;
    }
    return bytes;
  }

  byte[] encode() {
    byte[] name = topic.getBytes(StandardCharsets.UTF_8);
    int size = FIXED_BYTES + name.length + length(key) + length(value);
    byte[][] names = new byte[headers.size()][];
    for (int i = 0; i < names.length; i++) {
      names[i] = headers.get(i).key().getBytes(StandardCharsets.UTF_8);
      size += 8 + names[i].length + length(headers.get(i).value());
    }
    ByteBuffer out = ByteBuffer.allocate(size);
    out.put(VERSION).putShort((short) name.length).put(name);
    out.putInt(partition).putLong(offset).putLong(timestamp).putLong(acceptedAt);
    put(out, key);
    out.putInt(names.length);
    for (int i = 0; i < names.length; i++) {
      put(out, names[i]);
      put(out, headers.get(i).value());
    }
    put(out, value);
    return out.array();
  }

  static PromptRecord decode(byte[] bytes) {
    ByteBuffer in = ByteBuffer.wrap(bytes);
    byte version = in.get();
    if (version != VERSION) {
      throw new IllegalStateException(
          "an in-flight prompt was stored in format "
              + version
              + ", this worker reads "
              + VERSION
              + ": let a worker of the version that wrote it finish it first");
    }
    byte[] name = new byte[in.getShort()];
    in.get(name);
    int partition = in.getInt();
    long offset = in.getLong();
    long timestamp = in.getLong();
    long acceptedAt = in.getLong();
    byte[] key = get(in);
    Header[] headers = new Header[in.getInt()];
    for (int i = 0; i < headers.length; i++) {
      byte[] header = get(in);
      headers[i] =
          new RecordHeader(
              header == null ? "" : new String(header, StandardCharsets.UTF_8), get(in));
    }
    return new PromptRecord(
        new String(name, StandardCharsets.UTF_8),
        partition,
        offset,
        timestamp,
        acceptedAt,
        key,
        List.of(headers),
        get(in));
  }

  private static int length(byte @Nullable [] bytes) {
    return bytes == null ? 0 : bytes.length;
  }

  private static void put(ByteBuffer out, byte @Nullable [] bytes) {
    if (bytes == null) {
      out.putInt(-1);
    } else {
      out.putInt(bytes.length).put(bytes);
    }
  }

  private static byte @Nullable [] get(ByteBuffer in) {
    int length = in.getInt();
    if (length < 0) {
      return null;
    }
    byte[] bytes = new byte[length];
    in.get(bytes);
    return bytes;
  }
}
