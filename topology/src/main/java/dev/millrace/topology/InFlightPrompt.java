package dev.millrace.topology;

import dev.millrace.inference.api.GenerateEvent;
import dev.millrace.inference.api.Generator;
import dev.millrace.schemas.CompletionFinish;
import java.util.ArrayList;
import java.util.List;
import org.apache.kafka.common.utils.Bytes;
import org.jspecify.annotations.Nullable;

/**
 * An accepted prompt that has not ended for good: what a task knows of it in memory. Belongs to the
 * stream thread.
 */
final class InFlightPrompt {
  /** Where it stands. */
  enum State {
    /** Its event is not read yet: the registry gives no answer. */
    UNREAD,
    /** To be given to the engine, at once or after a pause. */
    WAITING,
    /** The engine has it. */
    RUNNING,
    /**
     * Its answer is there and cannot be sent yet: the registry gives no answer, or a commit is due.
     */
    UNWRITTEN,
    /** Sent; kept until that is known to be durable. */
    SENT
  }

  /** As a term: the engine does not have it. */
  static final int NOT_GIVEN = -1;

  final PromptKey key;

  /** Without the value, which the store holds. */
  final PromptRecord record;

  /** Pieces in the prompts' store. */
  final int pieces;

  /** Bytes in the prompts' store. */
  final int bytes;

  /** Whether an earlier owner of the task stored it. */
  final boolean restored;

  State state = State.UNREAD;

  /** What it asks for; null while it is unread. */
  EventMapper.@Nullable Accepted accepted;

  /**
   * What is told about it to tracing; null until this owner of the task has accepted it, and where
   * nothing is recorded.
   */
  Tracing.@Nullable PromptTrace trace;

  final Tokens tokens = new Tokens();

  /** The number of the current attempt, from 1. */
  int attempt;

  /** How often the engine failed it. */
  int failures;

  /** Count of commits when the current attempt was noted in the store. */
  long attemptAt;

  /** Crashes at which it was there, and since which it did not get on. */
  int crashes;

  /** Crashes while it ran alone. */
  int crashesAlone;

  /** Tokens that it had saved at the first of these crashes. */
  int crashedAt;

  /** Whether the current attempt runs alone, until it is past where it stood. */
  boolean alone;

  /** In which term of the task the engine was given it, as far as noted; 0 if nothing was. */
  int term;

  /** Count of commits when it ran alone no more. */
  long leftAt;

  /** Waits until the note of its attempt is durable, to be submitted then. */
  boolean noted;

  /** Waits for a later try, outside of the window. */
  boolean resting;

  /** The current attempt; events of any other are late. */
  @Nullable Object current;

  Generator.@Nullable Generation generation;

  /** How many tokens the engine may bring it to for now. */
  int allowed;

  /** Count of commits when it was last saved before its time. */
  long pressedAt = -1;

  /** Records in the progress store that this owner of the task wrote. */
  int progressRecords;

  /** Keys of those that earlier owners wrote. */
  final List<Bytes> earlierProgress = new ArrayList<>();

  /** When the oldest unsaved token came, milliseconds since 1970. */
  long unsavedSince;

  /** When to submit it, milliseconds since 1970, while it waits. */
  long submitAt;

  /** How it is to end early, once the engine lets go of it; null: as it comes. */
  @Nullable CompletionFinish endAs;

  /** When the engine was asked to let go of it, milliseconds since 1970. */
  long endAsked;

  /** Text of the current attempt that is not sent as a chunk yet. */
  final StringBuilder chunkContent = new StringBuilder();

  final StringBuilder chunkReasoning = new StringBuilder();
  int chunkSequence;

  /** When the last chunk was sent, milliseconds since 1970. */
  long chunkAt;

  /** To be tried again; null unless it is unwritten. */
  @Nullable Runnable ending;

  /** What it came to, once that is known; read back from the store it is sent again. */
  @Nullable Outcome outcome;

  /** Count of commits when it was sent. */
  long sentAt;

  InFlightPrompt(PromptKey key, PromptRecord record, int pieces, int bytes, boolean restored) {
    this.key = key;
    this.record = record.withoutValue();
    this.pieces = pieces;
    this.bytes = bytes;
    this.restored = restored;
  }

  EventMapper.Accepted accepted() {
    EventMapper.Accepted known = accepted;
    if (known == null) {
      throw new IllegalStateException("the prompt at offset " + key.offset() + " is unread");
    }
    return known;
  }

  /** The prompt's id; null while it is unread. */
  @Nullable String id() {
    if (accepted != null) {
      return accepted.id();
    }
    return outcome == null || outcome.answered().isEmpty() ? null : outcome.answered();
  }

  /** The prompt's id, or where its record was read if that is not known yet. */
  String name() {
    return accepted == null
        ? record.topic() + "-" + record.partition() + "@" + record.offset()
        : accepted.id();
  }

  /** {@link #name()} for log lines. */
  String label() {
    return Printable.of(name());
  }

  void addDelta(GenerateEvent.Delta delta, boolean stream, long now) {
    if (delta.tokens().length > 0) {
      if (tokens.unsaved() == 0) {
        unsavedSince = now;
      }
      tokens.add(delta.tokens());
    }
    if (stream) {
      chunkContent.append(delta.content());
      chunkReasoning.append(delta.reasoning());
    }
  }
}
