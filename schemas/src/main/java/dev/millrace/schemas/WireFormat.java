package dev.millrace.schemas;

import java.nio.ByteBuffer;
import java.util.HexFormat;
import java.util.UUID;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.Headers;
import org.jspecify.annotations.Nullable;

/**
 * Where a record says which schema it was written with: in its first bytes ({@code 0x00} and a
 * 4-byte id, or {@code 0x01} and a 16-byte GUID), or the same in the header {@code
 * __value_schema_id} ({@code __key_schema_id} for keys), and then the bytes are Avro alone.
 */
final class WireFormat {
  static final String VALUE_HEADER = "__value_schema_id";
  static final String KEY_HEADER = "__key_schema_id";

  private static final byte ID = 0x00;
  private static final byte GUID = 0x01;
  private static final int ID_LENGTH = 1 + Integer.BYTES;
  private static final int GUID_LENGTH = 1 + 2 * Long.BYTES;

  private WireFormat() {}

  /** Names a schema in the registry. */
  sealed interface SchemaRef {
    record Id(int id) implements SchemaRef {
      @Override
      public String toString() {
        return "schema id " + id;
      }
    }

    record Guid(UUID guid) implements SchemaRef {
      @Override
      public String toString() {
        return "schema GUID " + guid;
      }
    }
  }

  /**
   * A record's schema and where its Avro bytes begin.
   *
   * @param offset of the first Avro byte
   */
  record Framed(SchemaRef schema, int offset) {}

  /**
   * Finds the schema's name.
   *
   * @throws BadRecordException if the record is not in the registry's format
   */
  static Framed parse(byte[] data, @Nullable Headers headers, boolean isKey) {
    Header header = headers == null ? null : headers.lastHeader(isKey ? KEY_HEADER : VALUE_HEADER);
    if (header != null) {
      byte[] value = header.value();
      SchemaRef ref = value == null ? null : ref(value);
      if (ref == null || value.length != (ref instanceof SchemaRef.Id ? ID_LENGTH : GUID_LENGTH)) {
        throw new BadRecordException(
            "the header "
                + header.key()
                + " names no schema: it must hold 0x01 and a 16-byte GUID, or 0x00 and a 4-byte id,"
                + " but holds "
                + (value == null ? "nothing" : start(value)));
      }
      return new Framed(ref, 0);
    }
    SchemaRef ref = ref(data);
    if (ref == null) {
      throw new BadRecordException(
          "the record is not in the schema registry's format: it must begin with 0x00 and a 4-byte"
              + " schema id, or 0x01 and a 16-byte GUID, but is "
              + start(data));
    }
    return new Framed(ref, ref instanceof SchemaRef.Id ? ID_LENGTH : GUID_LENGTH);
  }

  /** The bytes that go before a record's Avro. */
  static byte[] prefix(int id) {
    return ByteBuffer.allocate(ID_LENGTH).put(ID).putInt(id).array();
  }

  private static @Nullable SchemaRef ref(byte[] bytes) {
    ByteBuffer in = ByteBuffer.wrap(bytes);
    if (bytes.length >= ID_LENGTH && bytes[0] == ID) {
      return new SchemaRef.Id(in.getInt(1));
    }
    if (bytes.length >= GUID_LENGTH && bytes[0] == GUID) {
      return new SchemaRef.Guid(new UUID(in.getLong(1), in.getLong(1 + Long.BYTES)));
    }
    return null;
  }

  private static String start(byte[] bytes) {
    if (bytes.length == 0) {
      return "empty";
    }
    int shown = Math.min(bytes.length, 8);
    return bytes.length
        + " bytes beginning with "
        + HexFormat.ofDelimiter(" ").formatHex(bytes, 0, shown);
  }
}
