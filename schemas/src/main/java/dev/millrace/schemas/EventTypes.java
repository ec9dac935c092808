package dev.millrace.schemas;

import java.util.List;
import org.apache.avro.Schema;
import org.apache.avro.data.TimeConversions;
import org.apache.avro.specific.SpecificData;
import org.apache.avro.specific.SpecificRecord;
import org.jspecify.annotations.Nullable;

/** The events that there are, and how Avro maps them to Java. */
public final class EventTypes {
  /** Every event's class; each has a schema of its own in the registry. */
  public static final List<Class<? extends SpecificRecord>> ALL =
      List.of(
          PromptEvent.class,
          CompletionEvent.class,
          ToolCallEvent.class,
          ChunkEvent.class,
          CancelEvent.class);

  private static final SpecificData DATA = newData();
  private static final SpecificData WRITING = newData();

  static {
    // Generated classes bring coders of their own; those that read would go around Allowance.
    WRITING.setCustomCoders(true);
  }

  private EventTypes() {}

  /** The schema that a generated class was generated from. */
  public static Schema schemaOf(Class<? extends SpecificRecord> type) {
    return SpecificData.get().getSchema(type);
  }

  /** The event of that full name; null if it is none of ours. Never loads a class by name. */
  static @Nullable Class<? extends SpecificRecord> byName(String fullName) {
    for (Class<? extends SpecificRecord> type : ALL) {
      if (type.getName().equals(fullName)) {
        return type;
      }
    }
    return null;
  }

  /**
   * The data model of generated classes. The fast reader is off because it goes around the limits
   * of {@link Allowance}.
   */
  static SpecificData data() {
    return DATA;
  }

  /** The same for writing, with the generated classes' own coders where they have any. */
  static SpecificData writing() {
    return WRITING;
  }

  private static SpecificData newData() {
    SpecificData data = EventModel.create();
    data.addLogicalTypeConversion(new TimeConversions.TimestampMillisConversion());
    data.setFastReaderEnabled(false);
    return data;
  }
}
