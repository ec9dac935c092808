package dev.millrace.topology;

import dev.millrace.schemas.AvroSerde;
import dev.millrace.schemas.AvroSerializer;
import dev.millrace.schemas.CancelEvent;
import dev.millrace.schemas.ChunkEvent;
import dev.millrace.schemas.CompletionEvent;
import dev.millrace.schemas.EventSerdes;
import dev.millrace.schemas.PromptEvent;
import dev.millrace.schemas.RegistryUnavailableException;
import dev.millrace.schemas.ToolCallEvent;
import java.util.List;
import org.apache.avro.specific.SpecificRecord;
import org.apache.kafka.common.serialization.Serde;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * A serde for each kind of event. Whoever made it closes it. Our own serde is safe for several
 * threads, so that all tasks can share it and the schemas that it knows; of another class each task
 * gets its own: {@link #forTask()}.
 */
final class EventCodecs implements AutoCloseable {
  private static final Logger log = LoggerFactory.getLogger(EventCodecs.class);

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
    try {
      EventSerdes.Family family = EventSerdes.family(config.serdeClass(), config.serdeSettings());
      this.prompts = family.of(PromptEvent.class);
      this.cancels = family.of(CancelEvent.class);
      this.completions = family.of(CompletionEvent.class);
      this.toolCalls = family.of(ToolCallEvent.class);
      this.chunks = family.of(ChunkEvent.class);
    } catch (org.apache.kafka.common.config.ConfigException e) {
      throw new ConfigException(
          "the serde does not accept its settings (serde.class, registry.url, registry.*,"
              + " serde.*): "
              + e.getMessage(),
          e);
    }
  }

  /**
   * Asks for the ids of what will be written, so that a registry that goes down later does no harm.
   * If it is down already, that is found when something is to be written.
   */
  void prepare() {
    Topics.Names topics = config.topics();
    try {
      prepare(completions, topics.completions(), CompletionEvent.class);
      prepare(toolCalls, topics.toolCalls(), ToolCallEvent.class);
      prepare(chunks, topics.chunks(), ChunkEvent.class);
    } catch (RegistryUnavailableException e) {
      log.warn("the registry is not there yet: {}", e.getMessage());
    }
  }

  private static <T extends SpecificRecord> void prepare(
      Serde<T> serde, String topic, Class<T> type) {
    if (serde.serializer() instanceof AvroSerializer<T> ours) {
      ours.prepare(topic, type);
    }
  }

  /**
   * Whether an unknown schema costs no time while the registry is down: then what is known can go
   * on to be read.
   */
  boolean failFast() {
    return shared;
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
