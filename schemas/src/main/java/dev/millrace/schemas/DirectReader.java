package dev.millrace.schemas;

import java.io.IOException;
import java.time.Instant;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.avro.AvroRuntimeException;
import org.apache.avro.LogicalTypes;
import org.apache.avro.Schema;
import org.apache.avro.specific.SpecificRecord;
import org.jspecify.annotations.Nullable;

/**
 * Reads events whose writer's schema lays them out as ours does, field for field: of nearly all
 * events. There is nothing to resolve then, so it knows beforehand what follows what, and takes a
 * fraction of the time of {@link BoundedReader}, within the same {@link Allowance}. Safe for
 * several threads.
 */
final class DirectReader {
  /** Reads one value. */
  private interface Node {
    @Nullable Object read(BoundedDecoder in, Allowance memory) throws IOException;
  }

  private static final Node STRING =
      (in, memory) -> {
        memory.use(Allowance.STRING);
        return in.readString();
      };

  private final Node event;

  private DirectReader(Node event) {
    this.event = event;
  }

  /** For events of these schemas; null if they are not laid out alike. */
  static @Nullable DirectReader of(Schema writer, Schema reader) {
    Node event = node(writer, reader);
    return event == null ? null : new DirectReader(event);
  }

  /**
   * The next event.
   *
   * @throws IOException if the bytes end too early
   * @throws RuntimeException if they are no such event, or it takes too much memory
   */
  Object read(BoundedDecoder in, Allowance memory) throws IOException {
    Object read = event.read(in, memory);
    if (read == null) {
      throw new AvroRuntimeException("it is null");
    }
    return read;
  }

  private static @Nullable Node node(Schema writer, Schema reader) {
    if (writer.getType() != reader.getType()) {
      return null;
    }
    if (reader.getLogicalType() != null) {
      return reader.getLogicalType().equals(LogicalTypes.timestampMillis())
              && reader.getType() == Schema.Type.LONG
          ? (in, memory) -> Instant.ofEpochMilli(in.readLong())
          : null;
    }
    return switch (reader.getType()) {
      case STRING -> STRING;
      case BOOLEAN -> (in, memory) -> in.readBoolean();
      case INT -> (in, memory) -> in.readInt();
      case LONG -> (in, memory) -> in.readLong();
      case FLOAT -> (in, memory) -> in.readFloat();
      case DOUBLE -> (in, memory) -> in.readDouble();
      case NULL -> (in, memory) -> null;
      case ENUM -> symbols(writer, reader);
      case UNION -> branches(writer, reader);
      case ARRAY -> array(writer, reader);
      case MAP -> map(writer, reader);
      case RECORD -> record(writer, reader);
      default -> null;
    };
  }

  private static @Nullable Node symbols(Schema writer, Schema reader) {
    if (!writer.getFullName().equals(reader.getFullName())
        || !writer.getEnumSymbols().equals(reader.getEnumSymbols())) {
      return null;
    }
    Object[] symbols =
        reader.getEnumSymbols().stream()
            .map(symbol -> EventTypes.data().createEnum(symbol, reader))
            .toArray();
    return (in, memory) -> symbols[index(in.readEnum(), symbols.length, "symbol")];
  }

  private static @Nullable Node branches(Schema writer, Schema reader) {
    Node[] branches = nodes(writer.getTypes(), reader.getTypes());
    return branches == null
        ? null
        : (in, memory) ->
            branches[index(in.readIndex(), branches.length, "branch")].read(in, memory);
  }

  private static int index(int read, int count, String what) {
    if (read < 0 || read >= count) {
      throw new AvroRuntimeException("there is no " + what + " " + read + ", of " + count);
    }
    return read;
  }

  private static @Nullable Node array(Schema writer, Schema reader) {
    Node item = node(writer.getElementType(), reader.getElementType());
    if (item == null) {
      return null;
    }
    int slot =
        reader.getElementType().getType() == Schema.Type.INT ? Allowance.INT : Allowance.LIST_SLOT;
    return (in, memory) -> {
      memory.use(Allowance.COLLECTION);
      long count = in.readArrayStart();
      @SuppressWarnings("unchecked") // It holds what its schema says.
      Collection<@Nullable Object> list =
          (Collection<@Nullable Object>)
              EventTypes.data()
                  .newArray(null, (int) Math.min(count, Allowance.MAX_PREALLOCATED), reader);
      for (; count > 0; count = in.arrayNext()) {
        for (long i = 0; i < count; i++) {
          Object read = item.read(in, memory);
          memory.use(slot);
          list.add(read);
        }
      }
      return list;
    };
  }

  private static @Nullable Node map(Schema writer, Schema reader) {
    Node value = node(writer.getValueType(), reader.getValueType());
    if (value == null) {
      return null;
    }
    return (in, memory) -> {
      memory.use(Allowance.COLLECTION);
      long count = in.readMapStart();
      Map<@Nullable Object, @Nullable Object> map =
          new HashMap<>((int) Math.min(count, Allowance.MAX_PREALLOCATED));
      for (; count > 0; count = in.mapNext()) {
        for (long i = 0; i < count; i++) {
          Object key = STRING.read(in, memory);
          Object read = value.read(in, memory);
          memory.use(Allowance.MAP_ENTRY);
          map.put(key, read);
        }
      }
      return map;
    };
  }

  private static @Nullable Node record(Schema writer, Schema reader) {
    List<Schema.Field> fields = reader.getFields();
    if (!writer.getFullName().equals(reader.getFullName())
        || !names(writer).equals(names(reader))) {
      return null;
    }
    Node[] nodes =
        nodes(
            writer.getFields().stream().map(Schema.Field::schema).toList(),
            fields.stream().map(Schema.Field::schema).toList());
    if (nodes == null) {
      return null;
    }
    int cost = Allowance.ofRecord(fields.size());
    return (in, memory) -> {
      memory.use(cost);
      SpecificRecord record = (SpecificRecord) EventTypes.data().newRecord(null, reader);
      for (int i = 0; i < nodes.length; i++) {
        record.put(i, nodes[i].read(in, memory));
      }
      return record;
    };
  }

  private static List<String> names(Schema record) {
    return record.getFields().stream().map(Schema.Field::name).toList();
  }

  private static Node @Nullable [] nodes(List<Schema> writers, List<Schema> readers) {
    if (writers.size() != readers.size()) {
      return null;
    }
    Node[] nodes = new Node[readers.size()];
    for (int i = 0; i < nodes.length; i++) {
      Node node = node(writers.get(i), readers.get(i));
      if (node == null) {
        return null;
      }
      nodes[i] = node;
    }
    return nodes;
  }
}
