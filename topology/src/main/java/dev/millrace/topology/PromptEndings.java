package dev.millrace.topology;

import dev.millrace.inference.api.FinishReason;
import dev.millrace.inference.api.GenerateEvent;
import dev.millrace.inference.api.Generator;
import dev.millrace.inference.api.TraceOnly;
import dev.millrace.schemas.CompletionFinish;
import dev.millrace.schemas.RegistryUnavailableException;
import dev.millrace.topology.DeadLetters.Reason;
import dev.millrace.topology.InFlightPrompt.State;
import dev.millrace.topology.Output.Sink;
import java.nio.charset.StandardCharsets;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.List;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.errors.SerializationException;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.Headers;
import org.apache.kafka.common.header.internals.RecordHeaders;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.streams.processor.api.Record;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;
import org.slf4j.MDC;

/**
 * Ends prompts: each in exactly one outcome, sent once it is certain to be kept until it has been
 * sent. Belongs to the stream thread.
 *
 * <p>Under at-least-once a prompt is retired in two steps, since its outcome and its deletion are
 * sends to different partitions, of which a crash may keep the second and lose the first: the
 * outcome is sent now, and the prompt deleted only when a later commit has shown that it was
 * acknowledged. Under exactly-once both are one transaction.
 */
final class PromptEndings {
  private static final Logger log = LoggerFactory.getLogger(PromptEndings.class);

  /** What tracing may add to a record's headers, or a reply that is refused. */
  private static final int HEADER_ROOM = 1024;

  private static final GenerateEvent.Done NOTHING =
      new GenerateEvent.Done(
          FinishReason.CANCELLED,
          "",
          "",
          List.of(),
          new GenerateEvent.Usage(0, 0, 0, 0, 0),
          new GenerateEvent.Timings(0, 0, 0),
          List.of());

  private final TaskState task;
  private final Services services;
  private final Topics.Names topics;
  private final Replies replies;
  private final ArrayDeque<InFlightPrompt> sent = new ArrayDeque<>();
  private final List<InFlightPrompt> waitingForCommit = new ArrayList<>();
  private final List<InFlightPrompt> unwritten = new ArrayList<>();

  /** They ran alone, and that they do so no more is not durable yet. */
  private final List<InFlightPrompt> leaving = new ArrayList<>();

  PromptEndings(TaskState task) {
    this.task = task;
    this.services = task.services;
    this.topics = services.config().topics();
    this.replies = new Replies(services);
  }

  /** Ends a prompt of which nothing was generated, as cancelled or expired. */
  void end(InFlightPrompt prompt, CompletionFinish finish) {
    complete(prompt, NOTHING, finish);
  }

  /**
   * Ends a prompt with its answer. One that is ready after the deadline says so, whole as it may
   * be.
   */
  void complete(InFlightPrompt prompt, GenerateEvent.Done done, CompletionFinish came) {
    boolean late = came != CompletionFinish.CANCELLED && task.now() >= prompt.accepted().deadline();
    CompletionFinish finish = late ? CompletionFinish.EXPIRED : came;
    letGo(prompt);
    if (task.registryDown) {
      // Asking again for each prompt would hold the stream thread for one timeout each.
      holdBack(unwritten, prompt, () -> complete(prompt, done, finish));
      return;
    }
    List<Output> outputs = new ArrayList<>(1 + done.toolCalls().size());
    try {
      if (prompt.accepted().stream() && prompt.attempt > 0) {
        if (!chunksAllowed(prompt)) {
          holdBack(waitingForCommit, prompt, () -> complete(prompt, done, finish));
          return;
        }
        outputs.add(writeChunk(prompt, true));
      }
      for (GenerateEvent.ToolCall call : done.toolCalls()) {
        outputs.add(
            write(
                Sink.TOOL_CALL,
                task.codecs.toolCalls,
                services.mapper().toolCall(prompt, call),
                cloudEvent(prompt, "tool-call", Integer.toString(call.index()))));
      }
      outputs.add(
          write(
              Sink.COMPLETION,
              task.codecs.completions,
              services.mapper().completion(prompt, done, finish),
              cloudEvent(prompt, "completion", "completion")));
    } catch (RegistryUnavailableException e) {
      registryFailed(e);
      holdBack(unwritten, prompt, () -> complete(prompt, done, finish));
      return;
    } catch (SerializationException e) {
      deadLetter(prompt, Reason.INTERNAL, "the answer cannot be written: " + e.getMessage(), e);
      return;
    }
    String problem = tooLarge(prompt, outputs);
    if (problem != null) {
      deadLetter(prompt, Reason.ANSWER_TOO_LARGE, problem, null);
      return;
    }
    services.metrics().completed(finish, done, prompt.record.acceptedAt(), task.now());
    services.metrics().toolCalls.increment(done.toolCalls().size());
    settle(prompt, new Outcome(prompt.accepted().id(), outputs));
  }

  /**
   * Ends an accepted prompt as a dead letter.
   *
   * @param message for its headers; never for a log line, since it may quote the prompt
   */
  void deadLetter(InFlightPrompt prompt, Reason reason, String message, @Nullable Throwable cause) {
    log.warn(
        "{}prompt {} becomes a dead letter, whose headers say more: {}",
        prefix(),
        prompt.label(),
        reason);
    letGo(prompt);
    services.metrics().deadLettered(reason);
    if (prompt.trace != null) {
      prompt.trace.deadLetter(reason);
    }
    String id = prompt.accepted == null ? null : prompt.accepted.id();
    // A corrected prompt may come under the same id from now on; it was not asked to be cancelled.
    task.unnamed(prompt);
    if (id != null) {
      task.seen.forgetCancel(id);
    }
    Output letter = DeadLetters.of(prompt.record, id, reason, message, cause);
    settle(prompt, new Outcome("", List.of(letter)));
  }

  /**
   * Ends a record that was not accepted as a dead letter. Safe without a stored prompt: its offset
   * is not committed before the dead letter is acknowledged.
   */
  void deadLetter(PromptRecord record, Reason reason, String message, @Nullable Throwable cause) {
    log.warn(
        "{}the record at {}-{}@{} becomes a dead letter, whose headers say more: {}",
        prefix(),
        record.topic(),
        record.partition(),
        record.offset(),
        reason);
    services.metrics().deadLettered(reason);
    Tracing.PromptTrace trace = services.tracing().process(record, "");
    if (trace != null) {
      trace.deadLetter(reason);
    }
    Output letter = DeadLetters.of(record, null, reason, message, cause);
    sendLetter(record, letter);
    replies.refuse(record, letter.headers());
    if (trace != null) {
      trace.end();
    }
  }

  /** Sends what a prompt came to under an earlier owner of the task. */
  void sendAgain(InFlightPrompt prompt, Outcome outcome) {
    services.metrics().sentAgain.increment();
    String problem = tooLarge(prompt, outcome.outputs());
    if (problem != null) {
      deadLetter(prompt, Reason.ANSWER_TOO_LARGE, problem, null);
      return;
    }
    prompt.outcome = outcome;
    task.named(prompt);
    send(prompt, outcome);
  }

  /** Forgets a prompt without an outcome of its own: it is a duplicate of another. */
  void discard(InFlightPrompt prompt) {
    letGo(prompt);
    services.gate().end();
    task.forget(prompt);
  }

  /** Whether chunks of the current attempt may be seen: only if no other will have its number. */
  boolean chunksAllowed(InFlightPrompt prompt) {
    return task.exactlyOnce || task.commits() > prompt.attemptAt;
  }

  /** Sends the text that came since the last chunk. */
  void sendChunk(InFlightPrompt prompt) {
    if (task.registryDown) {
      return;
    }
    Output chunk;
    try {
      chunk = writeChunk(prompt, false);
    } catch (RegistryUnavailableException e) {
      // The text waits for the next chunk, or the last.
      registryFailed(e);
      return;
    } catch (SerializationException e) {
      giveUp(prompt, Reason.INTERNAL, "a chunk cannot be written: " + e.getMessage(), e);
      return;
    }
    String problem = tooLarge(prompt, List.of(chunk));
    if (problem != null) {
      giveUp(prompt, Reason.ANSWER_TOO_LARGE, problem, null);
      return;
    }
    forward(prompt, key(prompt), chunk);
    prompt.chunkSequence++;
    prompt.chunkContent.setLength(0);
    prompt.chunkReasoning.setLength(0);
  }

  /** Ends a prompt that the engine still has as a dead letter. */
  private void giveUp(
      InFlightPrompt prompt, Reason reason, String message, @Nullable Throwable cause) {
    Generator.Generation generation = prompt.generation;
    deadLetter(prompt, reason, message, cause);
    if (generation != null) {
      generation.cancel();
    }
  }

  /** The second step: deletes what is known to have been sent. */
  void retire() {
    long commits = task.commits();
    while (!sent.isEmpty() && sent.getFirst().sentAt < commits) {
      delete(sent.removeFirst());
    }
  }

  /** Sends what waited for its attempt to be durable. */
  void retryWaitingForCommit() {
    retry(waitingForCommit);
  }

  /** Tries again to write what could not be written; ends at the first that still cannot. */
  void retryUnwritten() {
    retry(unwritten);
  }

  private void retry(List<InFlightPrompt> held) {
    if (held.isEmpty()) {
      return;
    }
    List<InFlightPrompt> again = new ArrayList<>(held);
    held.clear();
    for (InFlightPrompt prompt : again) {
      Runnable ending = prompt.ending;
      if (ending == null) {
        continue;
      }
      if (task.registryDown) {
        // Each try may take seconds: the rest waits for its turn.
        unwritten.add(prompt);
        continue;
      }
      prompt.ending = null;
      contain(prompt, ending);
    }
  }

  /** Does what concerns one prompt; a defect that it hits ends this prompt and no other. */
  void contain(InFlightPrompt prompt, Runnable work) {
    MDC.put(Printable.LOG_KEY, prompt.label());
    try {
      work.run();
    } catch (KafkaException e) {
      throw e;
    } catch (RuntimeException e) {
      log.error("prompt {} hit a defect", prompt.label(), TraceOnly.of(e));
      if (prompt.state != State.SENT) {
        deadLetter(prompt, Reason.INTERNAL, "a defect of the worker: " + e, e);
      }
    } finally {
      MDC.remove(Printable.LOG_KEY);
    }
  }

  /** The engine has nothing more to do with it. */
  private void letGo(InFlightPrompt prompt) {
    prompt.current = null;
    prompt.generation = null;
    prompt.noted = false;
    leaveQuarantine(prompt);
    wake(prompt);
  }

  /**
   * It does not run alone any more; the others go on when that is durable, so that a crash of their
   * doing is not counted against it.
   */
  void leaveQuarantine(InFlightPrompt prompt) {
    if (prompt.alone) {
      prompt.alone = false;
      prompt.leftAt = task.commits();
      task.store.saveAttempt(prompt);
      task.askForCommit();
      leaving.add(prompt);
    } else if (!leaving.contains(prompt)) {
      services.quarantine().leave(prompt);
    }
  }

  /** Lets the others go on where it is durable by now that one does not run alone any more. */
  void leaveQuarantine() {
    leaving.removeIf(
        prompt -> {
          boolean durable = task.commits() > prompt.leftAt;
          if (durable && !prompt.alone) {
            services.quarantine().leave(prompt);
          }
          return durable || prompt.alone;
        });
  }

  /** The task is gone, and its suspects with it. */
  void leaveQuarantineNow() {
    leaving.forEach(services.quarantine()::leave);
    leaving.clear();
  }

  /** It waits for no later try; nothing happens if it did not. */
  void wake(InFlightPrompt prompt) {
    if (prompt.resting) {
      prompt.resting = false;
      services.gate().wake();
    }
  }

  private static void holdBack(List<InFlightPrompt> held, InFlightPrompt prompt, Runnable ending) {
    prompt.state = State.UNWRITTEN;
    prompt.ending = ending;
    held.add(prompt);
  }

  void registryFailed(Exception e) {
    services.metrics().registryFailures.increment();
    if (services.gate().stall(task)) {
      log.warn("{}no new prompts until the registry answers: {}", prefix(), e.getMessage());
    }
    task.registryDown = true;
    task.registryRetryAt = task.now() + TaskState.REGISTRY_RETRY_MS;
  }

  private void settle(InFlightPrompt prompt, Outcome outcome) {
    prompt.outcome = outcome;
    if (!task.exactlyOnce) {
      // What is not kept here would be generated again. Under exactly-once a crash undoes both.
      task.store.saveOutcome(prompt, outcome);
    }
    send(prompt, outcome);
  }

  private void send(InFlightPrompt prompt, Outcome outcome) {
    byte[] key = key(prompt);
    for (Output output : outcome.outputs()) {
      if (output.sink() == Sink.DEAD_LETTER) {
        sendLetter(task.store.record(prompt), output);
        replies.refuse(prompt.record, output.headers());
      } else {
        forward(prompt, key, output);
      }
    }
    prompt.state = State.SENT;
    if (prompt.trace != null) {
      prompt.trace.end();
      prompt.trace = null;
    }
    services.gate().end();
    if (task.exactlyOnce) {
      delete(prompt);
    } else {
      prompt.sentAt = task.commits();
      sent.add(prompt);
    }
  }

  private void delete(InFlightPrompt prompt) {
    if (!task.exactlyOnce && prompt.restored && prompt.key.offset() > task.readTo) {
      // Its record may still be to come: the one who kept it may have crashed before a commit.
      task.seen.rememberRecord(prompt.key);
    }
    Outcome outcome = prompt.outcome;
    if (outcome != null && !outcome.answered().isEmpty()) {
      EventMapper.Accepted accepted = prompt.accepted;
      task.seen.remember(accepted == null ? SeenIds.Hash.of(outcome.answered()) : accepted.hash());
      task.seen.forgetCancel(outcome.answered());
    }
    task.forget(prompt);
  }

  private Output writeChunk(InFlightPrompt prompt, boolean last) {
    return write(
        Sink.CHUNK,
        task.codecs.chunks,
        EventMapper.chunk(prompt, last),
        cloudEvent(prompt, "chunk", prompt.attempt + "/" + prompt.chunkSequence));
  }

  private <T> Output write(Sink sink, Serde<T> serde, T event, List<Header> headers) {
    return new Output(sink, headers, serde.serializer().serialize(sink.topic(topics), event));
  }

  private List<Header> cloudEvent(InFlightPrompt prompt, String kind, String part) {
    String id = prompt.accepted().id();
    return services.cloudEvents().of(prompt.record, id, kind, id + "/" + part, task.now());
  }

  private static byte[] key(InFlightPrompt prompt) {
    byte[] key = prompt.record.key();
    return key != null ? key : prompt.name().getBytes(StandardCharsets.UTF_8);
  }

  /** Why its topic would not take one of these; null if each fits. */
  private @Nullable String tooLarge(InFlightPrompt prompt, List<Output> outputs) {
    for (Output output : outputs) {
      String topic = output.sink().topic(topics);
      long size = size(prompt.record, output);
      int limit = services.limits().of(topic);
      // A dead letter leaves out what does not fit.
      if (output.sink() != Sink.DEAD_LETTER && size > limit) {
        return "the answer makes a record of %d bytes for topic %s, which takes %d: ask for fewer"
                .formatted(size, topic, limit)
            + " tokens, send less metadata, or raise max.prompt.bytes and the topic's"
            + " max.message.bytes";
      }
    }
    return null;
  }

  private static long size(PromptRecord record, Output output) {
    byte[] key = record.key();
    byte[] value = output.value();
    return (key == null ? EventMapper.LONGEST_ID * 3L : key.length)
        + (value == null ? 0 : value.length)
        + PromptRecord.headerBytes(output.headers())
        + PromptRecord.headerBytes(Carried.of(record))
        + HEADER_ROOM;
  }

  private void forward(InFlightPrompt prompt, byte[] key, Output output) {
    Headers headers = new RecordHeaders();
    Carried.of(prompt.record).forEach(headers::add);
    output.headers().forEach(headers::add);
    Tracing.PromptTrace trace = prompt.trace;
    if (trace == null) {
      forward(prompt.record, key, output, headers);
    } else {
      trace.onto(headers);
      trace.run(() -> forward(prompt.record, key, output, headers));
    }
  }

  private void forward(PromptRecord record, byte[] key, Output output, Headers headers) {
    if (output.sink() == Sink.COMPLETION) {
      replies.answer(record, key, output.value(), headers);
    }
    // The prompt's own timestamp may be one that the broker refuses.
    task.context.forward(
        new Record<>(key, output.value(), task.now(), headers), output.sink().node());
  }

  /** A dead letter is the record as it came; only what no topic would take is left out of it. */
  private void sendLetter(PromptRecord record, Output letter) {
    int limit = services.limits().of(topics.deadLetters());
    long room = limit - PromptRecord.headerBytes(letter.headers());
    byte[] key = record.key();
    byte[] value = record.value();
    List<Header> original = record.headers();
    List<Header> omitted = new ArrayList<>();
    if (record.size() > room) {
      omitted.add(DeadLetters.header(DeadLetters.OMITTED, Long.toString(record.size())));
      value = null;
      if ((key == null ? 0 : key.length) + PromptRecord.headerBytes(original) > room) {
        original = List.of();
        key = key != null && key.length > room / 2 ? null : key;
      }
    }
    Headers headers = new RecordHeaders();
    original.forEach(headers::add);
    letter.headers().forEach(headers::add);
    omitted.forEach(headers::add);
    task.context.forward(new Record<>(key, value, task.now(), headers), Sink.DEAD_LETTER.node());
  }

  private String prefix() {
    return "task " + task.context.taskId() + ": ";
  }
}
