package dev.millrace.inference.checkpoint;

import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * One mapped safetensors file: 8 bytes of header length (little-endian), a JSON header {@code
 * {name: {dtype, shape, data_offsets: [begin, end]}}}, then the data, which the tensors cover
 * exactly, without gaps or overlap. Nothing in the header is believed before it was checked against
 * the size of the file.
 */
final class SafetensorsFile {
  /** As in the format's own implementation: a longer header is damage or an attack. */
  static final long MAX_HEADER_BYTES = 100_000_000;

  private static final ObjectMapper JSON =
      new ObjectMapper()
          .enable(JsonParser.Feature.STRICT_DUPLICATE_DETECTION)
          .enable(DeserializationFeature.FAIL_ON_TRAILING_TOKENS);

  private final Path file;
  private final Map<String, Entry> entries;

  /** A tensor whose place was checked, of any dtype. */
  record Entry(String dtype, long[] shape, MemorySegment data) {}

  private SafetensorsFile(Path file, Map<String, Entry> entries) {
    this.file = file;
    this.entries = entries;
  }

  Path file() {
    return file;
  }

  Map<String, Entry> entries() {
    return entries;
  }

  /** Maps the file for as long as {@code arena} lives and checks its header. */
  static SafetensorsFile open(Path file, Arena arena) {
    MemorySegment all = map(file, arena);
    long size = all.byteSize();
    if (size < 8) {
      throw bad(file, "it has only " + size + " bytes, not even a header length");
    }
    long header = all.get(ValueLayout.JAVA_LONG_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN), 0);
    if (header < 2 || header > MAX_HEADER_BYTES || header > size - 8) {
      throw bad(
          file,
          "its header claims "
              + Long.toUnsignedString(header)
              + " bytes; the file has "
              + (size - 8)
              + " after the length, and a header may have "
              + MAX_HEADER_BYTES);
    }
    byte[] json = all.asSlice(8, header).toArray(ValueLayout.JAVA_BYTE);
    JsonNode root;
    try {
      root = JSON.readTree(json);
    } catch (JsonProcessingException e) {
      throw bad(file, "its header is no JSON: " + e.getOriginalMessage(), e);
    } catch (IOException e) {
      throw bad(file, "its header cannot be read: " + e.getMessage(), e);
    }
    if (!root.isObject()) {
      throw bad(file, "its header is no JSON object");
    }
    return new SafetensorsFile(file, entries(file, root, all.asSlice(8 + header)));
  }

  private static Map<String, Entry> entries(Path file, JsonNode root, MemorySegment data) {
    Map<String, Entry> entries = new LinkedHashMap<>();
    List<Span> spans = new ArrayList<>();
    for (Map.Entry<String, JsonNode> field : root.properties()) {
      String name = field.getKey();
      if (name.equals("__metadata__")) {
        continue;
      }
      JsonNode tensor = field.getValue();
      String dtype = tensor.path("dtype").asText("");
      if (dtype.isEmpty()) {
        throw bad(file, "tensor " + name + " has no dtype");
      }
      long[] shape = longs(file, name, tensor, "shape");
      long[] offsets = longs(file, name, tensor, "data_offsets");
      if (offsets.length != 2 || offsets[1] < offsets[0] || offsets[1] > data.byteSize()) {
        throw bad(
            file,
            "tensor %s lies at %s, but the file has %d bytes of data"
                .formatted(name, Arrays.toString(offsets), data.byteSize()));
      }
      WeightFormat format = WeightFormat.ofDtype(dtype);
      long bytes = offsets[1] - offsets[0];
      if (format != null && bytes != bytes(file, name, format, shape)) {
        throw bad(
            file,
            "tensor %s is %s %s, which needs %d bytes, but it has %d"
                .formatted(
                    name, dtype, Arrays.toString(shape), bytes(file, name, format, shape), bytes));
      }
      entries.put(name, new Entry(dtype, shape, data.asSlice(offsets[0], bytes)));
      spans.add(new Span(name, offsets[0], offsets[1]));
    }
    checkCover(file, spans, data.byteSize());
    return entries;
  }

  private record Span(String name, long begin, long end) {}

  private static void checkCover(Path file, List<Span> spans, long size) {
    spans.sort(Comparator.comparingLong(Span::begin).thenComparingLong(Span::end));
    long reached = 0;
    String before = "the header";
    for (Span span : spans) {
      if (span.begin != reached) {
        throw bad(
            file,
            "tensor %s begins at byte %d of the data, but %s ends at %d: tensors must not %s"
                .formatted(
                    span.name,
                    span.begin,
                    before,
                    reached,
                    span.begin < reached ? "overlap" : "leave gaps"));
      }
      reached = span.end;
      before = "tensor " + span.name;
    }
    if (reached != size) {
      throw bad(file, "its tensors end at byte %d of %d bytes of data".formatted(reached, size));
    }
  }

  private static long bytes(Path file, String name, WeightFormat format, long[] shape) {
    try {
      long elements = 1;
      for (long n : shape) {
        elements = Math.multiplyExact(elements, n);
      }
      return format.bytes(elements);
    } catch (ArithmeticException e) {
      throw bad(file, "tensor " + name + " has an impossible shape " + Arrays.toString(shape), e);
    }
  }

  private static long[] longs(Path file, String name, JsonNode tensor, String key) {
    JsonNode array = tensor.path(key);
    long[] out = new long[array.size()];
    boolean ok = array.isArray();
    for (int i = 0; ok && i < out.length; i++) {
      JsonNode n = array.get(i);
      ok = n.isIntegralNumber() && n.canConvertToLong() && n.longValue() >= 0;
      out[i] = n.longValue();
    }
    if (!ok) {
      throw bad(
          file,
          "tensor %s has %s %s; it must be an array of whole numbers from 0"
              .formatted(name, key, array.isMissingNode() ? "missing" : array.toString()));
    }
    return out;
  }

  private static MemorySegment map(Path file, Arena arena) {
    try (FileChannel channel = FileChannel.open(file, StandardOpenOption.READ)) {
      return channel.map(FileChannel.MapMode.READ_ONLY, 0, channel.size(), arena);
    } catch (NoSuchFileException e) {
      throw new InvalidCheckpointException(file + " is missing: download the checkpoint again", e);
    } catch (IOException e) {
      throw new InvalidCheckpointException(file + " cannot be mapped: " + e.getMessage(), e);
    }
  }

  private static InvalidCheckpointException bad(Path file, String what) {
    return new InvalidCheckpointException(message(file, what));
  }

  private static InvalidCheckpointException bad(Path file, String what, Throwable cause) {
    return new InvalidCheckpointException(message(file, what), cause);
  }

  private static String message(Path file, String what) {
    return file + " is no sound safetensors file: " + what + ". Download it again.";
  }
}
