package dev.millrace.schemas;

import java.io.IOException;
import java.util.IdentityHashMap;
import java.util.Map;
import org.apache.avro.Schema;
import org.apache.avro.io.Decoder;
import org.apache.avro.io.ResolvingDecoder;
import org.apache.avro.specific.SpecificDatumReader;
import org.jspecify.annotations.Nullable;

/**
 * Reads one record within its {@link Allowance}, whatever schema it was written with. Of one
 * thread.
 */
final class BoundedReader<T> extends SpecificDatumReader<T> {
  private final Allowance memory;
  private final Map<Schema, Integer> recordCosts = new IdentityHashMap<>();

  BoundedReader(Schema writer, Schema reader, Allowance memory) {
    super(writer, reader, EventTypes.data());
    this.memory = memory;
  }

  @Override
  protected Object readRecord(@Nullable Object old, Schema expected, ResolvingDecoder in)
      throws IOException {
    memory.use(
        recordCosts.computeIfAbsent(
            expected, schema -> Allowance.ofRecord(schema.getFields().size())));
    return super.readRecord(old, expected, in);
  }

  @Override
  protected Object readString(@Nullable Object old, Schema expected, Decoder in)
      throws IOException {
    memory.use(Allowance.STRING);
    return super.readString(old, expected, in);
  }

  @Override
  protected Object newArray(@Nullable Object old, int size, Schema schema) {
    memory.use(Allowance.COLLECTION);
    return super.newArray(old, Math.min(size, Allowance.MAX_PREALLOCATED), schema);
  }

  @Override
  protected void addToArray(Object array, long position, Object item) {
    // Avro's lists of ints hold no objects.
    memory.use(item instanceof Integer ? Allowance.INT : Allowance.LIST_SLOT);
    super.addToArray(array, position, item);
  }

  @Override
  protected Object newMap(@Nullable Object old, int size) {
    memory.use(Allowance.COLLECTION);
    return super.newMap(old, Math.min(size, Allowance.MAX_PREALLOCATED));
  }

  @Override
  protected void addToMap(Object map, Object key, Object value) {
    memory.use(Allowance.MAP_ENTRY);
    super.addToMap(map, key, value);
  }
}
