package dev.millrace.schemas;

import java.util.HashMap;
import java.util.HashSet;
import java.util.Map;
import java.util.Set;
import org.apache.avro.Schema;

/**
 * Refuses schemas that would make Avro's reader run without end or out of memory. A registry takes
 * what any producer registers, so its schemas are input like the records.
 *
 * <ul>
 *   <li>The reader's grammar writes every use of a named type out in full: thirty types, each used
 *       twice by the next, are a billion symbols. So the schema's size written out has a limit.
 *   <li>A recursive type makes the depth of the stack a matter of the record's bytes.
 *   <li>An array whose items take no bytes can claim any number of them.
 * </ul>
 */
final class SchemaLimits {
  /** Characters of a schema's text. Ours have under 7,000. */
  static final int MAX_TEXT = 1 << 20;

  /** Types, fields and symbols of a schema with every named type written out where it is used. */
  static final long MAX_NODES = 20_000;

  private final Map<String, Long> nodes = new HashMap<>();
  private final Map<String, Long> bytes = new HashMap<>();
  private final Set<String> open = new HashSet<>();

  private SchemaLimits() {}

  /**
   * Returns normally if the schema can be read safely.
   *
   * @throws BadRecordException with the reason if it cannot
   */
  static void check(Schema schema) {
    SchemaLimits limits = new SchemaLimits();
    long nodes = limits.nodes(schema);
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

  private long nodes(Schema schema) {
    return switch (schema.getType()) {
      case RECORD -> {
        Long known = nodes.get(schema.getFullName());
        if (known != null) {
          yield known;
        }
        if (!open.add(schema.getFullName())) {
          throw new BadRecordException(
              "its schema uses the record " + schema.getFullName() + " inside itself");
        }
        long sum = 1;
        for (Schema.Field field : schema.getFields()) {
          sum = plus(sum, nodes(field.schema()));
        }
        open.remove(schema.getFullName());
        nodes.put(schema.getFullName(), sum);
        yield sum;
      }
      case UNION -> {
        long sum = 1;
        for (Schema branch : schema.getTypes()) {
          sum = plus(sum, nodes(branch));
        }
        yield sum;
      }
      case ARRAY -> plus(1, nodes(schema.getElementType()));
      case MAP -> plus(2, nodes(schema.getValueType()));
      case ENUM -> plus(1, schema.getEnumSymbols().size());
      default -> 1;
    };
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
