package dev.millrace.topology;

import dev.millrace.schemas.AvroSerde;
import dev.millrace.schemas.CancelEvent;
import dev.millrace.schemas.ChunkEvent;
import dev.millrace.schemas.CompletionEvent;
import dev.millrace.schemas.EventSerdes;
import dev.millrace.schemas.PromptEvent;
import dev.millrace.schemas.ToolCallEvent;
import java.util.List;
import java.util.Map;
import org.apache.avro.specific.SpecificRecord;
import org.apache.kafka.common.serialization.Serde;

/**
 * A serde for each kind of event. Whoever made it closes it. Our own serde is safe for several
 * threads, so that all tasks can share it and the schemas that it knows; of another class each task
 * gets its own: {@link #forTask()}.
 */
final class EventCodecs implements AutoCloseable {
  private final WorkerConfig config;
  private final boolean shared;
  final Serde<PromptEvent> prompts;
  final Serde<CancelEvent> cancels;
  final Serde<CompletionEvent> completions;
  final Serde<ToolCallEvent> toolCalls;
  final Serde<ChunkEvent> chunks;

  /**
   * @throws ConfigException if the serde's class or its settings cannot be used
   */
  EventCodecs(WorkerConfig config) {
    this.config = config;
    this.shared = config.serdeClass().equals(AvroSerde.class.getName());
    this.prompts = make(PromptEvent.class);
    this.cancels = make(CancelEvent.class);
    this.completions = make(CompletionEvent.class);
    this.toolCalls = make(ToolCallEvent.class);
    this.chunks = make(ChunkEvent.class);
  }

  private <T extends SpecificRecord> Serde<T> make(Class<T> type) {
    Map<String, String> settings = config.serdeSettings();
    try {
      return EventSerdes.create(type, config.serdeClass(), settings);
    } catch (org.apache.kafka.common.config.ConfigException e) {
      throw new ConfigException(
          "the serde does not accept its settings (serde.class, registry.url, registry.*,"
              + " serde.*): "
              + e.getMessage(),
          e);
    }
  }

  /** What one task uses, and hands back with {@link #release}. */
  EventCodecs forTask() {
    return shared ? this : new EventCodecs(config);
  }

  void release(EventCodecs used) {
    if (used != this) {
      used.close();
    }
  }

  @Override
  public void close() {
    List.of(prompts, cancels, completions, toolCalls, chunks).forEach(Serde::close);
  }
}
