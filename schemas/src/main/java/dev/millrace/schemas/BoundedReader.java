package dev.millrace.schemas;

import java.io.IOException;
import org.apache.avro.AvroRuntimeException;
import org.apache.avro.Schema;
import org.apache.avro.io.ResolvingDecoder;
import org.apache.avro.specific.SpecificDatumReader;
import org.jspecify.annotations.Nullable;

/**
 * Reads one record. An item of one byte on the wire can become an object of a hundred (fields that
 * its writer does not have are filled with defaults), so the number of objects has a limit of its
 * own.
 */
final class BoundedReader<T> extends SpecificDatumReader<T> {
  /** Messages, tools, calls and log-probabilities that one event may hold, all together. */
  static final int MAX_RECORDS = 1 << 20;

  private static final int MAX_PREALLOCATED = 1024;

  private int records;

  BoundedReader(Schema writer, Schema reader) {
    super(writer, reader, EventTypes.data());
  }

  @Override
  protected Object readRecord(@Nullable Object old, Schema expected, ResolvingDecoder in)
      throws IOException {
    if (++records > MAX_RECORDS) {
      throw new AvroRuntimeException("the event holds more than " + MAX_RECORDS + " parts");
    }
    return super.readRecord(old, expected, in);
  }

  @Override
  protected Object newArray(@Nullable Object old, int size, Schema schema) {
    return super.newArray(old, Math.min(size, MAX_PREALLOCATED), schema);
  }

  @Override
  protected Object newMap(@Nullable Object old, int size) {
    return super.newMap(old, Math.min(size, MAX_PREALLOCATED));
  }
}
