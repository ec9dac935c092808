package dev.millrace.schemas;

import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.apache.avro.Schema;

/**
 * Refuses schemas that would make Avro's reader run without end or out of memory. A registry takes
 * what any producer registers, so its schemas are input like the records.
 *
 * <ul>
 *   <li>The reader's grammar writes every use of a named type out in full: thirty types, each used
 *       twice by the next, are a billion symbols. So the schema's size written out has a limit, and
 *       its depth, for records that name one another nest without end in flat text.
 *   <li>A recursive type makes the depth of the stack a matter of the record's bytes.
 *   <li>An array whose items take no bytes can claim any number of them.
 * </ul>
 */
final class SchemaLimits {
  /** Characters of a schema's text. Ours have under 7,000. */
  static final int MAX_TEXT = 1 << 20;

  /** Types, fields and symbols of a schema with every named type written out where it is used. */
  static final long MAX_NODES = 20_000;

  /** Types within types, likewise written out. Ours have under 10. */
  static final int MAX_DEPTH = 100;

  private final Map<String, Size> sizes = new HashMap<>();
  private final Map<String, Long> bytes = new HashMap<>();
  private final Set<String> open = new HashSet<>();

  /**
   * Of a type written out.
   *
   * @param nodes at most one more than are allowed
   * @param height 1 without types inside
   */
  private record Size(long nodes, int height) {}

  private SchemaLimits() {}

  /**
   * Returns normally if the schema can be read safely.
   *
   * @throws BadRecordException with the reason if it cannot
   */
  static void check(Schema schema) {
    SchemaLimits limits = new SchemaLimits();
    long nodes = limits.size(schema, 1).nodes;
    if (nodes > MAX_NODES) {
      throw new BadRecordException(
          "its schema "
              + schema.getFullName()
              + " has more than "
              + MAX_NODES
              + " parts when every named type is written out where it is used");
    }
    limits.bytes(schema);
  }

  private Size size(Schema schema, int level) {
    refuseBelow(level);
    return switch (schema.getType()) {
      case RECORD -> {
        Size known = sizes.get(schema.getFullName());
        if (known == null) {
          if (!open.add(schema.getFullName())) {
            throw new BadRecordException(
                "its schema uses the record " + schema.getFullName() + " inside itself");
          }
          known = of(1, schema.getFields().stream().map(Schema.Field::schema).toList(), level);
          open.remove(schema.getFullName());
          sizes.put(schema.getFullName(), known);
        }
        refuseBelow(level + known.height - 1);
        yield known;
      }
      case UNION -> of(1, schema.getTypes(), level);
      case ARRAY -> of(1, List.of(schema.getElementType()), level);
      case MAP -> of(2, List.of(schema.getValueType()), level);
      case ENUM -> new Size(plus(1, schema.getEnumSymbols().size()), 1);
      default -> new Size(1, 1);
    };
  }

  private Size of(long own, List<Schema> parts, int level) {
    long nodes = own;
    int height = 0;
    for (Schema part : parts) {
      Size size = size(part, level + 1);
      nodes = plus(nodes, size.nodes);
      height = Math.max(height, size.height);
    }
    return new Size(nodes, 1 + height);
  }

  /** Each level is several frames of Avro's stack. */
  private static void refuseBelow(int level) {
    if (level > MAX_DEPTH) {
      throw new BadRecordException(
          "its schema has types nested deeper than "
              + MAX_DEPTH
              + " levels when every named type is written out where it is used");
    }
  }

  /** Fewest bytes that a value takes. */
  private long bytes(Schema schema) {
    return switch (schema.getType()) {
      case NULL -> 0;
      case FIXED -> schema.getFixedSize();
      case FLOAT -> Float.BYTES;
      case DOUBLE -> Double.BYTES;
      case RECORD -> {
        Long known = bytes.get(schema.getFullName());
        if (known != null) {
          yield known;
        }
        long sum = 0;
        for (Schema.Field field : schema.getFields()) {
          sum += bytes(field.schema());
        }
        bytes.put(schema.getFullName(), sum);
        yield sum;
      }
      case UNION -> {
        schema.getTypes().forEach(this::bytes);
        yield 1;
      }
      case ARRAY -> {
        if (bytes(schema.getElementType()) == 0) {
          throw new BadRecordException("its schema has an array whose items take no bytes");
        }
        yield 1;
      }
      case MAP -> {
        // An entry has its key at least.
        bytes(schema.getValueType());
        yield 1;
      }
      default -> 1;
    };
  }

  /** Stops growing just past the limit, so that it cannot overflow. */
  private static long plus(long a, long b) {
    return Math.min(a + b, MAX_NODES + 1);
  }
}
