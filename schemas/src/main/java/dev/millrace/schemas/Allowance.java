package dev.millrace.schemas;

import org.apache.avro.AvroRuntimeException;

/**
 * How much memory the parts of one record may take. A byte on the wire can become an object of a
 * hundred: an empty string, a map's entry, a message whose other fields are filled with defaults.
 * So what such objects take is counted against an allowance that grows with the record. Text and
 * numbers are not counted: they take about as much as their bytes.
 *
 * <p>The costs are what a 64-bit JVM with compressed references uses, rounded. Of one thread.
 */
final class Allowance {
  /** Bytes of memory for each byte of the record: token ids and log-probabilities always fit. */
  static final int FACTOR = 8;

  /** What a record may take however short it is. */
  static final long LEAST = 32L << 20;

  /** What no record may exceed however long it is, other than by its text and numbers. */
  static final long MOST = 256L << 20;

  static final int INT = 4;
  // A list's array of references grows by half: some of it is empty.
  static final int LIST_SLOT = 8;
  static final int STRING = 32;
  static final int COLLECTION = 32;
  static final int MAP_ENTRY = 48;

  /** A collection gets room for so many items before the first is read, however many it claims. */
  static final int MAX_PREALLOCATED = 1024;

  private static final int REFERENCE = 4;
  private static final int OBJECT_HEADER = 16;

  private final int length;
  private final long most;
  private long used;

  /**
   * @param length bytes of the record
   */
  Allowance(int length) {
    this.length = length;
    this.most = Math.clamp((long) FACTOR * length, LEAST, MOST);
  }

  /** What an object of a generated class takes. */
  static int ofRecord(int fields) {
    return OBJECT_HEADER + REFERENCE * fields;
  }

  /**
   * Counts so many bytes.
   *
   * @throws AvroRuntimeException if these are too many
   */
  void use(int bytes) {
    used += bytes;
    if (used > most) {
      throw new AvroRuntimeException(
          "it has too many small parts: besides their text, the strings, list items, map entries"
              + " and records in its "
              + length
              + " bytes take more than the "
              + most
              + " bytes of memory allowed for an event of that size");
    }
  }
}
