package dev.millrace.inference.checkpoint;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;

/** Writes safetensors files, sound ones and others. */
final class SafetensorsBuilder {
  private SafetensorsBuilder() {}

  /** A header, as it is, and so many bytes of data: 0, 1, 2, … */
  static Path write(Path file, String header, int dataBytes) {
    byte[] json = header.getBytes(StandardCharsets.UTF_8);
    return write(file, json.length, json, dataBytes);
  }

  static Path write(Path file, long claimedLength, byte[] header, int dataBytes) {
    ByteArrayOutputStream out = new ByteArrayOutputStream();
    out.writeBytes(
        ByteBuffer.allocate(8).order(ByteOrder.LITTLE_ENDIAN).putLong(claimedLength).array());
    out.writeBytes(header);
    for (int i = 0; i < dataBytes; i++) {
      out.write(i);
    }
    try {
      return Files.write(file, out.toByteArray());
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  static String tensor(String name, String dtype, String shape, long begin, long end) {
    return "\"%s\": {\"dtype\": \"%s\", \"shape\": %s, \"data_offsets\": [%d, %d]}"
        .formatted(name, dtype, shape, begin, end);
  }
}
