package dev.millrace.topology;

import dev.millrace.inference.api.InvalidRequestException;
import dev.millrace.inference.api.TraceOnly;
import dev.millrace.schemas.CancelEvent;
import dev.millrace.schemas.CompletionFinish;
import dev.millrace.schemas.PromptEvent;
import dev.millrace.schemas.RegistryUnavailableException;
import dev.millrace.topology.DeadLetters.Reason;
import dev.millrace.topology.InFlightPrompt.State;
import java.util.ArrayList;
import java.util.List;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.errors.SerializationException;
import org.apache.kafka.common.header.internals.RecordHeaders;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.processor.api.RecordMetadata;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;
import org.slf4j.MDC;

/**
 * Takes prompts and cancel events in. A record is either kept, in the store, before its offset can
 * be committed; or it is set aside as a dead letter at once; or it is a duplicate. Belongs to the
 * stream thread.
 */
final class PromptIntake {
  private static final Logger log = LoggerFactory.getLogger(PromptIntake.class);

  private final TaskState task;
  private final Services services;
  private final PromptRuns runs;
  private final PromptEndings endings;
  private final int maxBytes;

  /** An event, or why there is none. */
  private record Read<T>(
      @Nullable T event, @Nullable SerializationException failure, boolean outage) {}

  PromptIntake(TaskState task, PromptRuns runs, PromptEndings endings) {
    this.task = task;
    this.services = task.services;
    this.runs = runs;
    this.endings = endings;
    this.maxBytes = services.config().maxPromptBytes();
  }

  void prompt(Record<byte[], byte[]> record, RecordMetadata source) {
    task.readTo = source.offset();
    PromptRecord taken =
        new PromptRecord(
            source.topic(),
            source.partition(),
            source.offset(),
            record.timestamp(),
            task.now(),
            record.key(),
            List.of(record.headers().toArray()),
            record.value());
    if (taken.value() == null) {
      endings.deadLetter(taken, Reason.NO_VALUE, "the record has no value", null);
      return;
    }
    if (taken.size() > maxBytes) {
      endings.deadLetter(
          taken,
          Reason.RECORD_TOO_LARGE,
          "the record has %d bytes, max.prompt.bytes allows %d".formatted(taken.size(), maxBytes),
          null);
      return;
    }
    PromptKey key = PromptKey.of(taken);
    if (task.prompts.containsKey(key) || task.seen.ended(key)) {
      // It was kept, but its offset was not committed before a crash.
      services.metrics().replayed.increment();
      return;
    }
    if (task.registryDown) {
      keep(key, taken);
      return;
    }
    try {
      Read<PromptEvent> read = read(taken, task.codecs.prompts);
      if (read.outage()) {
        keep(key, taken);
        return;
      }
      MDC.put(Printable.LOG_KEY, taken.topic() + "-" + taken.partition() + "@" + taken.offset());
      decide(key, taken, read, null);
    } catch (KafkaException e) {
      throw e;
    } catch (RuntimeException e) {
      log.error("the record at offset {} hit a defect", taken.offset(), TraceOnly.of(e));
      InFlightPrompt kept = task.prompts.get(key);
      if (kept == null) {
        endings.deadLetter(taken, Reason.INTERNAL, "a defect of the worker: " + e, e);
      } else if (kept.state != State.SENT) {
        endings.deadLetter(kept, Reason.INTERNAL, "a defect of the worker: " + e, e);
      }
    } finally {
      MDC.remove(Printable.LOG_KEY);
    }
  }

  /** Reads kept prompts that could not be read before, or whose task has just moved here. */
  void readKept() {
    for (InFlightPrompt prompt : new ArrayList<>(task.prompts.values())) {
      if (prompt.state != State.UNREAD) {
        continue;
      }
      endings.contain(prompt, () -> readKept(prompt));
      if (prompt.state == State.UNREAD && task.prompts.containsKey(prompt.key)) {
        return;
      }
    }
  }

  private void readKept(InFlightPrompt prompt) {
    PromptRecord record = task.store.record(prompt);
    Read<PromptEvent> read = read(record, task.codecs.prompts);
    if (!read.outage()) {
      decide(prompt.key, record, read, prompt);
    }
  }

  private <T> Read<T> read(PromptRecord record, Serde<T> serde) {
    try {
      return new Read<>(
          serde
              .deserializer()
              .deserialize(record.topic(), new RecordHeaders(record.headers()), record.value()),
          null,
          false);
    } catch (RegistryUnavailableException e) {
      if (!task.registryDown) {
        endings.registryFailed(e);
      }
      return new Read<>(null, e, true);
    } catch (SerializationException e) {
      return new Read<>(null, e, false);
    }
  }

  private InFlightPrompt keep(PromptKey key, PromptRecord record) {
    InFlightPrompt prompt = task.store.add(key, record);
    task.prompts.put(key, prompt);
    services.gate().begin(prompt.bytes);
    services.metrics().accepted.increment();
    return prompt;
  }

  /**
   * @param kept the prompt, if it is in the store already
   */
  private void decide(
      PromptKey key, PromptRecord record, Read<PromptEvent> read, @Nullable InFlightPrompt kept) {
    PromptEvent event = read.event();
    if (event == null) {
      SerializationException failure = read.failure();
      reject(
          record,
          kept,
          Reason.BAD_RECORD,
          failure == null ? "the record holds no event" : String.valueOf(failure.getMessage()),
          failure);
      return;
    }
    String served = services.mapper().model();
    if (!event.getModel().isEmpty() && !event.getModel().equals(served)) {
      reject(
          record,
          kept,
          Reason.MODEL_NOT_SERVED,
          "prompt %s asks for model '%s'; this worker serves '%s'"
              .formatted(EventMapper.idOf(event, record), event.getModel(), served),
          null);
      return;
    }
    EventMapper.Accepted accepted;
    try {
      accepted = services.mapper().accept(event, record);
    } catch (InvalidRequestException e) {
      reject(
          record,
          kept,
          Reason.INVALID_REQUEST,
          "prompt %s: %s".formatted(EventMapper.idOf(event, record), e.getMessage()),
          e);
      return;
    }
    if (task.byId(accepted.id()) != null || task.seen.answered(accepted.hash())) {
      log.info("prompt {} was taken in before: it is answered once", Printable.of(accepted.id()));
      services.metrics().duplicates.increment();
      if (kept != null) {
        endings.discard(kept);
      }
      return;
    }
    begin(kept == null ? keep(key, record) : kept, accepted);
  }

  private void begin(InFlightPrompt prompt, EventMapper.Accepted accepted) {
    MDC.put(Printable.LOG_KEY, Printable.of(accepted.id()));
    prompt.accepted = accepted;
    prompt.state = State.WAITING;
    prompt.trace = services.tracing().process(prompt.record, accepted.id());
    task.named(prompt);
    if (task.seen.cancelled(accepted.id())) {
      runs.endUnrun(prompt, CompletionFinish.CANCELLED);
    } else if (task.now() >= accepted.deadline()) {
      runs.endUnrun(prompt, CompletionFinish.EXPIRED);
    } else {
      runs.start(prompt);
    }
  }

  private void reject(
      PromptRecord record,
      @Nullable InFlightPrompt kept,
      Reason reason,
      String message,
      @Nullable Throwable cause) {
    if (kept == null) {
      endings.deadLetter(record, reason, message, cause);
    } else {
      endings.deadLetter(kept, reason, message, cause);
    }
  }

  void cancel(Record<byte[], byte[]> record, RecordMetadata source) {
    if (record.value() == null) {
      return;
    }
    PromptRecord taken =
        new PromptRecord(
            source.topic(),
            source.partition(),
            source.offset(),
            record.timestamp(),
            task.now(),
            record.key(),
            List.of(record.headers().toArray()),
            record.value());
    if (!cancel(taken) && !task.seen.keepUnread(taken.offset(), taken.encode())) {
      log.warn(
          "the cancel at {}-{}@{} is ignored: the registry gives no answer, and it is too large to"
              + " be kept, or there are too many",
          taken.topic(),
          taken.partition(),
          taken.offset());
    }
  }

  /** Reads cancels that could not be read while the registry gave no answer. */
  void readKeptCancels() {
    task.seen.takeUnread(record -> cancel(PromptRecord.decode(record)));
  }

  /** Does what a cancel event wishes; false if it cannot be read before the registry answers. */
  private boolean cancel(PromptRecord taken) {
    Read<CancelEvent> read =
        task.registryDown && !task.codecs.failFast()
            ? new Read<>(null, null, true)
            : read(taken, task.codecs.cancels);
    if (read.outage()) {
      return false;
    }
    CancelEvent event = read.event();
    if (event == null) {
      // A cancel is a wish: without it the prompt is answered, so nothing is lost.
      log.warn(
          "the cancel at {}-{}@{} is ignored, it cannot be read: {}",
          taken.topic(),
          taken.partition(),
          taken.offset(),
          read.failure() == null ? "it is empty" : TraceOnly.of(read.failure()).toString());
      return true;
    }
    String id = event.getPromptId();
    InFlightPrompt prompt = task.byId(id);
    if (prompt != null && prompt.state != State.SENT) {
      // Remembered as well: if the task moves before the engine lets go, its next owner must know.
      task.seen.rememberCancel(id, task.now());
      runs.endEarly(prompt, CompletionFinish.CANCELLED, task.now());
    } else if (prompt == null && !id.isEmpty() && !task.seen.answered(SeenIds.Hash.of(id))) {
      task.seen.rememberCancel(id, task.now());
    }
    return true;
  }
}
