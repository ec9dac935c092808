package dev.millrace.schemas;

import java.io.IOException;
import java.util.IdentityHashMap;
import java.util.Map;
import org.apache.avro.AvroRuntimeException;
import org.apache.avro.Schema;
import org.apache.avro.io.Decoder;
import org.apache.avro.io.ResolvingDecoder;
import org.apache.avro.specific.SpecificDatumReader;
import org.jspecify.annotations.Nullable;

/**
 * Reads one record. A byte on the wire can become an object of a hundred: an empty string, a map's
 * entry, a message whose other fields are filled with defaults. So what such objects take in memory
 * is counted against an allowance that grows with the record. Text and numbers are not counted:
 * they take about as much as their bytes.
 *
 * <p>The costs are what a 64-bit JVM with compressed references uses, rounded. Of one thread.
 */
final class BoundedReader<T> extends SpecificDatumReader<T> {
  /** Bytes of memory for each byte of the record: token ids and log-probabilities always fit. */
  static final int FACTOR = 8;

  /** What a record may take however short it is. */
  static final long LEAST_ALLOWANCE = 32L << 20;

  /** What no record may exceed however long it is, other than by its text and numbers. */
  static final long MOST_ALLOWANCE = 256L << 20;

  private static final int INT = 4;
  private static final int REFERENCE = 4;
  // A list's array of references grows by half: some of it is empty.
  private static final int LIST_SLOT = 8;
  private static final int OBJECT_HEADER = 16;
  private static final int STRING = 32;
  private static final int COLLECTION = 32;
  private static final int MAP_ENTRY = 48;

  private static final int MAX_PREALLOCATED = 1024;

  private final int length;
  private final long allowance;
  private final Map<Schema, Integer> recordCosts = new IdentityHashMap<>();
  private long used;

  /**
   * @param length bytes of the record
   */
  BoundedReader(Schema writer, Schema reader, int length) {
    super(writer, reader, EventTypes.data());
    this.length = length;
    this.allowance = Math.clamp((long) FACTOR * length, LEAST_ALLOWANCE, MOST_ALLOWANCE);
  }

  private void use(int bytes) {
    used += bytes;
    if (used > allowance) {
      throw new AvroRuntimeException(
          "it has too many small parts: besides their text, the strings, list items, map entries"
              + " and records in its "
              + length
              + " bytes take more than the "
              + allowance
              + " bytes of memory allowed for an event of that size");
    }
  }

  @Override
  protected Object readRecord(@Nullable Object old, Schema expected, ResolvingDecoder in)
      throws IOException {
    use(
        recordCosts.computeIfAbsent(
            expected, schema -> OBJECT_HEADER + REFERENCE * schema.getFields().size()));
    return super.readRecord(old, expected, in);
  }

  @Override
  protected Object readString(@Nullable Object old, Schema expected, Decoder in)
      throws IOException {
    use(STRING);
    return super.readString(old, expected, in);
  }

  @Override
  protected Object newArray(@Nullable Object old, int size, Schema schema) {
    use(COLLECTION);
    return super.newArray(old, Math.min(size, MAX_PREALLOCATED), schema);
  }

  @Override
  protected void addToArray(Object array, long position, Object item) {
    // Avro's lists of ints hold no objects.
    use(item instanceof Integer ? INT : LIST_SLOT);
    super.addToArray(array, position, item);
  }

  @Override
  protected Object newMap(@Nullable Object old, int size) {
    use(COLLECTION);
    return super.newMap(old, Math.min(size, MAX_PREALLOCATED));
  }

  @Override
  protected void addToMap(Object map, Object key, Object value) {
    use(MAP_ENTRY);
    super.addToMap(map, key, value);
  }
}
