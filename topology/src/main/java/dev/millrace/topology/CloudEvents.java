package dev.millrace.topology;

import java.nio.charset.StandardCharsets;
import java.time.Instant;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.regex.Pattern;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;

/**
 * CloudEvents 1.0 in the binary mode of its Kafka binding: attributes are headers that begin with
 * {@code ce_}, the data is the record's value as it is, and its type the header {@code
 * content-type}. What a prompt brings is read from any record; what goes out is a setting. Holds no
 * state.
 */
final class CloudEvents {
  private static final String PREFIX = "ce_";

  /** Attributes that say something of the prompt's own record, and of no other. */
  private static final Set<String> CORE =
      Set.of(
          "specversion",
          "id",
          "source",
          "type",
          "time",
          "subject",
          "dataschema",
          "datacontenttype",
          "causationid");

  /** What a prompt's metadata shows of its record. */
  private static final List<String> SHOWN = List.of("id", "source", "type", "time", "subject");

  /** As CloudEvents has it: lower-case letters and digits. */
  private static final Pattern NAME = Pattern.compile("[a-z0-9]{1,32}");

  /** Most bytes of attributes that are carried on: they are copied to every chunk. */
  private static final int MOST_BYTES = 4 * 1024;

  private final String source;

  /**
   * @param source the attribute of that name on what goes out; empty: no attributes go out
   */
  CloudEvents(String source) {
    this.source = source;
  }

  /** The id that a prompt's record has as a CloudEvent; empty if it has none. */
  static String id(PromptRecord record) {
    byte[] id = Carried.last(record.headers(), PREFIX + "id");
    return id == null ? "" : text(id);
  }

  /** A prompt's metadata, and beside it what its record says of itself as a CloudEvent. */
  static Map<String, String> metadata(PromptRecord record, Map<String, String> own) {
    Map<String, String> found = new HashMap<>();
    int bytes = 0;
    for (String name : SHOWN) {
      byte[] value = Carried.last(record.headers(), PREFIX + name);
      if (value != null) {
        bytes += value.length;
        found.put(PREFIX + name, text(value));
      }
    }
    if (found.isEmpty() || bytes > MOST_BYTES) {
      return Map.copyOf(own);
    }
    found.putAll(own);
    return Map.copyOf(found);
  }

  /**
   * The attributes of an event about a prompt.
   *
   * @param kind what it is, the end of its type
   * @param id names it among all events of this source, the same however often it is sent
   */
  List<Header> of(PromptRecord record, String promptId, String kind, String id, long now) {
    if (source.isEmpty()) {
      return List.of();
    }
    List<Header> headers = new ArrayList<>();
    add(headers, PREFIX + "specversion", "1.0");
    add(headers, PREFIX + "id", id);
    add(headers, PREFIX + "source", source);
    add(headers, PREFIX + "type", "dev.millrace." + kind);
    add(headers, PREFIX + "time", Instant.ofEpochMilli(now).toString());
    add(headers, PREFIX + "subject", promptId);
    add(headers, PREFIX + "causationid", causation(record, promptId));
    add(headers, "content-type", "application/avro");
    headers.addAll(extensions(record));
    return headers;
  }

  private static String causation(PromptRecord record, String promptId) {
    String id = id(record);
    return id.isEmpty() || id.length() > EventMapper.LONGEST_ID ? promptId : id;
  }

  /** Attributes that are none of the core: whoever set them wants them on what follows. */
  private static List<Header> extensions(PromptRecord record) {
    Map<String, Header> found = new HashMap<>();
    for (Header header : record.headers()) {
      if (header.key().startsWith(PREFIX) && header.value() != null) {
        String name = header.key().substring(PREFIX.length());
        if (!CORE.contains(name) && NAME.matcher(name).matches()) {
          found.put(name, header);
        }
      }
    }
    return PromptRecord.headerBytes(found.values()) > MOST_BYTES
        ? List.of()
        : List.copyOf(found.values());
  }

  private static void add(List<Header> headers, String name, String value) {
    headers.add(new RecordHeader(name, value.getBytes(StandardCharsets.UTF_8)));
  }

  private static String text(byte[] value) {
    return new String(value, StandardCharsets.UTF_8);
  }
}
