package dev.millrace.topology.cli;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.millrace.topology.DeadLetter;
import dev.millrace.topology.Printable;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.time.Instant;
import java.util.HexFormat;
import java.util.Locale;
import org.apache.kafka.common.header.Header;
import org.jspecify.annotations.Nullable;

/** Dead letters for people and for scripts. */
final class Letters {
  private static final ObjectMapper JSON = new ObjectMapper();
  private static final int MESSAGE = 80;
  private static final int HEX_BYTES = 64;

  private Letters() {}

  /** The key as text, or in hexadecimal where it is none. */
  static String key(DeadLetter letter) {
    return text(letter.key());
  }

  /** One line. What comes from outside cannot lead the terminal astray. */
  static String line(DeadLetter letter, boolean replayed) {
    String message = Printable.of(letter.message());
    return String.format(
        Locale.ROOT,
        "%s  %s  %-16s %s  %s-%d@%d  %d bytes%s%s  %s",
        place(letter),
        Instant.ofEpochMilli(letter.timestamp()),
        Printable.of(letter.reason()),
        name(letter),
        Printable.of(letter.source()),
        letter.sourcePartition(),
        letter.sourceOffset(),
        letter.omitted() >= 0 ? letter.omitted() : letter.size(),
        letter.omitted() >= 0 ? " (not kept)" : "",
        replayed ? "  [replayed]" : "",
        message.length() > MESSAGE ? message.substring(0, MESSAGE) + "…" : message);
  }

  static String place(DeadLetter letter) {
    return letter.partition() + "@" + letter.offset();
  }

  /** The prompt's id, or its key where the id is not known. */
  static String name(DeadLetter letter) {
    return Printable.of(letter.promptId().isEmpty() ? key(letter) : letter.promptId());
  }

  /** One line of JSON: all but value and stack trace. */
  static ObjectNode json(DeadLetter letter, boolean replayed) {
    ObjectNode node = JSON.createObjectNode();
    node.put("partition", letter.partition());
    node.put("offset", letter.offset());
    node.put("time", Instant.ofEpochMilli(letter.timestamp()).toString());
    node.put("reason", letter.reason());
    node.put("id", letter.promptId());
    node.put("key", key(letter));
    node.put("message", letter.message());
    node.put("exception", letter.exception());
    ObjectNode source = node.putObject("source");
    source.put("topic", letter.source());
    source.put("partition", letter.sourcePartition());
    source.put("offset", letter.sourceOffset());
    node.put("bytes", letter.omitted() >= 0 ? letter.omitted() : letter.size());
    node.put("valueKept", letter.omitted() < 0);
    node.put("replayed", replayed);
    return node;
  }

  /** The prompt's own headers, added to its JSON. */
  static void addHeaders(ObjectNode node, DeadLetter letter) {
    ObjectNode headers = node.putObject("headers");
    for (Header header : letter.headers()) {
      headers.put(header.key(), text(header.value()));
    }
  }

  /** Text as it is, other bytes in hexadecimal. */
  static String text(byte @Nullable [] bytes) {
    if (bytes == null) {
      return "";
    }
    try {
      return StandardCharsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(bytes)).toString();
    } catch (CharacterCodingException e) {
      return hex(bytes);
    }
  }

  /** The first bytes in hexadecimal. */
  static String hex(byte[] bytes) {
    int shown = Math.min(bytes.length, HEX_BYTES);
    return "0x" + HexFormat.of().formatHex(bytes, 0, shown) + (shown < bytes.length ? "…" : "");
  }
}
