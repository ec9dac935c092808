package dev.millrace.topology;

import dev.millrace.topology.Output.Sink;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;

/**
 * What a prompt came to: the one outcome that it has, kept until it is known to have been sent.
 *
 * @param answered the prompt's id if it was answered; empty for a dead letter, which may be sent
 *     again
 * @param outputs in the order in which they are sent
 */
record Outcome(String answered, List<Output> outputs) {
  private static final Sink[] SINKS = Sink.values();

  Outcome {
    outputs = List.copyOf(outputs);
  }

  byte[] encode() {
    byte[] id = answered.getBytes(StandardCharsets.UTF_8);
    int size = 4 + id.length + 4;
    for (Output output : outputs) {
      byte[] value = output.value();
      size += 1 + 4 + 4 + (value == null ? 0 : value.length);
      for (Header header : output.headers()) {
        size += 8 + 3 * header.key().length() + header.value().length;
      }
    }
    ByteBuffer out = ByteBuffer.allocate(size);
    put(out, id);
    out.putInt(outputs.size());
    for (Output output : outputs) {
      out.put((byte) output.sink().ordinal()).putInt(output.headers().size());
      for (Header header : output.headers()) {
        put(out, header.key().getBytes(StandardCharsets.UTF_8));
        put(out, header.value());
      }
      byte[] value = output.value();
      if (value == null) {
        out.putInt(-1);
      } else {
        put(out, value);
      }
    }
    // The names of headers may take less than the room that was made for them.
    return out.hasRemaining() ? Arrays.copyOf(out.array(), out.position()) : out.array();
  }

  static Outcome decode(byte[] bytes) {
    ByteBuffer in = ByteBuffer.wrap(bytes);
    String answered = new String(take(in, in.getInt()), StandardCharsets.UTF_8);
    int count = in.getInt();
    List<Output> outputs = new ArrayList<>(count);
    for (int i = 0; i < count; i++) {
      Sink sink = SINKS[in.get()];
      List<Header> headers = new ArrayList<>();
      for (int h = in.getInt(); h > 0; h--) {
        String name = new String(take(in, in.getInt()), StandardCharsets.UTF_8);
        headers.add(new RecordHeader(name, take(in, in.getInt())));
      }
      int length = in.getInt();
      outputs.add(new Output(sink, headers, length < 0 ? null : take(in, length)));
    }
    return new Outcome(answered, outputs);
  }

  private static void put(ByteBuffer out, byte[] bytes) {
    out.putInt(bytes.length).put(bytes);
  }

  private static byte[] take(ByteBuffer in, int length) {
    byte[] bytes = new byte[length];
    in.get(bytes);
    return bytes;
  }
}
