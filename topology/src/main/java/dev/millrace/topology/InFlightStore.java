package dev.millrace.topology;

import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.UUID;
import org.apache.kafka.common.config.TopicConfig;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.state.KeyValueIterator;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.StoreBuilder;
import org.apache.kafka.streams.state.Stores;
import org.jspecify.annotations.Nullable;

/**
 * The accepted prompts of a task that have not ended, in stores whose changelogs outlive the
 * worker: {@code prompts} holds each record as it was read, in pieces of at most 512 KiB; {@code
 * progress} the tokens generated so far, the attempts, and at last what the prompt came to.
 *
 * <p>A prompt's first piece is written last, so that a prompt whose first piece is there is whole;
 * it is deleted first. The same holds for the pieces of a result.
 */
final class InFlightStore {
  static final int PIECE_BYTES = 512 * 1024;
  static final String PROMPTS = "prompts";
  static final String PROGRESS = "progress";
  static final String SEEN = "seen";

  /** Kinds of progress records. */
  private static final byte ATTEMPT = 1;

  private static final byte TOKENS = 2;
  private static final byte RESULT = 3;

  /** Kind of the records of the task itself: which worker has it, one for each term. */
  private static final byte OWNER = 4;

  /** Of the task itself. */
  private static final PromptKey TASK = new PromptKey(-1, 0);

  /** Where earlier versions kept the owner, whatever its term; sorts before those of the terms. */
  static final Bytes ANY_OWNER = TASK.at(0);

  private static final int RESULT_HEADER = 1 + 4 + 4;

  /** Without these the active segment is never compacted, and what a restore reads only grows. */
  static final Map<String, String> CHANGELOG =
      Map.of(
          TopicConfig.SEGMENT_BYTES_CONFIG, Integer.toString(32 * 1024 * 1024),
          TopicConfig.SEGMENT_MS_CONFIG, "60000",
          TopicConfig.MIN_CLEANABLE_DIRTY_RATIO_CONFIG, "0.1");

  private final KeyValueStore<Bytes, byte[]> prompts;
  private final KeyValueStore<Bytes, byte[]> progress;

  /** Of the task's owner, which all that it writes of prompts' progress has in its key. */
  private int term;

  /** Keys of what was noted of owners before this one. */
  private final List<Bytes> earlierOwners = new ArrayList<>();

  InFlightStore(ProcessorContext<?, ?> context) {
    this.prompts = context.getStateStore(PROMPTS);
    this.progress = context.getStateStore(PROGRESS);
  }

  /** The stores that a task needs, in memory and changelogged. */
  static Set<StoreBuilder<?>> builders() {
    Set<StoreBuilder<?>> builders = new HashSet<>();
    for (String name : List.of(PROMPTS, PROGRESS, SEEN)) {
      Map<String, String> changelog = new HashMap<>(CHANGELOG);
      if (name.equals(PROMPTS)) {
        // They are text, and may be large. Progress is deleted soon, answers kept in it too, and
        // ids
        // do not shrink: what the broker would save there is not worth its work.
        changelog.put(TopicConfig.COMPRESSION_TYPE_CONFIG, "lz4");
      }
      builders.add(
          Stores.keyValueStoreBuilder(
                  Stores.inMemoryKeyValueStore(name), Serdes.Bytes(), Serdes.ByteArray())
              .withCachingDisabled()
              .withLoggingEnabled(changelog));
    }
    builders.add(CommitMarker.builder());
    return builders;
  }

  InFlightPrompt add(PromptKey key, PromptRecord record) {
    byte[] bytes = record.encode();
    int pieces = pieces(bytes.length, PIECE_BYTES - 4);
    for (int i = pieces - 1; i >= 0; i--) {
      int from = i * (PIECE_BYTES - 4);
      int length = Math.min(PIECE_BYTES - 4, bytes.length - from);
      byte[] piece = new byte[4 + length];
      ByteBuffer.wrap(piece).putInt(bytes.length).put(bytes, from, length);
      prompts.put(key.at(i), piece);
    }
    return new InFlightPrompt(key, record, pieces, bytes.length, false);
  }

  /** The whole record, value included. */
  PromptRecord record(InFlightPrompt prompt) {
    PromptRecord record = read(prompt.key, prompts.get(prompt.key.at(0)));
    if (record == null) {
      throw new IllegalStateException(
          "the stored prompt " + prompt.name() + " has lost a piece: restore the task");
    }
    return record;
  }

  private @Nullable PromptRecord read(PromptKey key, byte @Nullable [] first) {
    if (first == null) {
      return null;
    }
    int total = ByteBuffer.wrap(first).getInt();
    byte[] bytes = new byte[total];
    int at = 0;
    byte[] piece = first;
    for (int i = 0; at < total; i++) {
      if (i > 0) {
        piece = prompts.get(key.at(i));
      }
      if (piece == null) {
        return null;
      }
      System.arraycopy(piece, 4, bytes, at, piece.length - 4);
      at += piece.length - 4;
    }
    return PromptRecord.decode(bytes);
  }

  /**
   * Who has the task.
   *
   * @param worker the process
   * @param handedOver whether it gave the task up in good order; if not, and it is another process,
   *     that one has crashed or was cut off
   * @param term counts the owners that the task has had
   */
  record Owner(UUID worker, boolean handedOver, int term) {}

  /**
   * The one that had the task last; null if it never had one. Each term has a record of its own, so
   * that an owner that was cut off, and hands over when it is back, writes over nobody's.
   */
  @Nullable Owner owner() {
    Owner last = null;
    earlierOwners.clear();
    try (KeyValueIterator<Bytes, byte[]> all = progress.range(ANY_OWNER, null)) {
      while (all.hasNext()) {
        KeyValue<Bytes, byte[]> entry = all.next();
        earlierOwners.add(entry.key);
        Owner owner = owner(ByteBuffer.wrap(entry.value));
        last = last == null || owner.term() >= last.term() ? owner : last;
      }
    }
    return last;
  }

  private static Owner owner(ByteBuffer in) {
    in.get();
    boolean handedOver = in.get() != 0;
    UUID worker = new UUID(in.getLong(), in.getLong());
    return new Owner(worker, handedOver, in.hasRemaining() ? in.getInt() : 0);
  }

  /** Once it is durable who has the task now, nobody needs to know who had it before. */
  void forgetEarlierOwners() {
    earlierOwners.forEach(progress::delete);
    earlierOwners.clear();
  }

  /** From now on the progress is written by this owner of the task. */
  void ownedIn(int newTerm) {
    term = newTerm;
  }

  /**
   * The last owner of which a prompt has progress; 0 if none has. It may be a later one than {@link
   * #owner} says, where one of an earlier version, which knew of one record for all, was cut off
   * and handed over late.
   */
  int lastTerm() {
    int last = 0;
    try (KeyValueIterator<Bytes, byte[]> all = progress.all()) {
      while (all.hasNext()) {
        Bytes key = all.next().key;
        if (!isOwner(key)) {
          last = Math.max(last, PromptKey.term(key));
        }
      }
    }
    return last;
  }

  private Bytes next(InFlightPrompt prompt) {
    return prompt.key.at(term, prompt.progressRecords++);
  }

  static boolean isOwner(Bytes key) {
    return PromptKey.of(key).equals(TASK);
  }

  void saveOwner(Owner owner) {
    progress.put(
        TASK.at(owner.term(), 0),
        ByteBuffer.allocate(22)
            .put(OWNER)
            .put((byte) (owner.handedOver() ? 1 : 0))
            .putLong(owner.worker().getMostSignificantBits())
            .putLong(owner.worker().getLeastSignificantBits())
            .putInt(owner.term())
            .array());
  }

  /** Notes the current attempt, and how the prompt stands. */
  void saveAttempt(InFlightPrompt prompt) {
    progress.put(
        next(prompt),
        ByteBuffer.allocate(26)
            .put(ATTEMPT)
            .putInt(prompt.attempt)
            .putInt(prompt.failures)
            .putInt(prompt.crashes)
            .putInt(prompt.crashesAlone)
            .putInt(prompt.crashedAt)
            .put((byte) (prompt.alone ? 1 : 0))
            .putInt(prompt.term)
            .array());
  }

  /**
   * Saves what was generated since the last save.
   *
   * @param commits so far: what is saved is durable when there are more
   * @return bytes that it takes
   */
  int saveTokens(InFlightPrompt prompt, long commits) {
    if (prompt.tokens.unsaved() == 0) {
      return 0;
    }
    byte[] delta = prompt.tokens.takeUnsaved(TOKENS, prompt.attempt, commits);
    progress.put(next(prompt), delta);
    return delta.length + PromptKey.BYTES + 8;
  }

  /** Saves what a prompt came to, so that it can be sent again. */
  void saveOutcome(InFlightPrompt prompt, Outcome outcome) {
    byte[] bytes = outcome.encode();
    int room = PIECE_BYTES - RESULT_HEADER;
    int pieces = pieces(bytes.length, room);
    int first = prompt.progressRecords;
    prompt.progressRecords += pieces;
    for (int i = pieces - 1; i >= 0; i--) {
      int length = Math.min(room, bytes.length - i * room);
      byte[] piece = new byte[RESULT_HEADER + length];
      ByteBuffer.wrap(piece)
          .put(RESULT)
          .putInt(i)
          .putInt(bytes.length)
          .put(bytes, i * room, length);
      progress.put(prompt.key.at(term, first + i), piece);
    }
  }

  void delete(InFlightPrompt prompt) {
    for (int i = 0; i < prompt.pieces; i++) {
      prompts.delete(prompt.key.at(i));
    }
    prompt.earlierProgress.forEach(progress::delete);
    for (int i = 0; i < prompt.progressRecords; i++) {
      progress.delete(prompt.key.at(term, i));
    }
  }

  /** What an earlier owner of the task left, in the order in which it was read. */
  List<InFlightPrompt> restore() {
    Map<PromptKey, InFlightPrompt> found = new LinkedHashMap<>();
    try (KeyValueIterator<Bytes, byte[]> all = prompts.all()) {
      while (all.hasNext()) {
        KeyValue<Bytes, byte[]> entry = all.next();
        if (PromptKey.number(entry.key) == 0) {
          PromptKey key = PromptKey.of(entry.key);
          PromptRecord record = read(key, entry.value);
          if (record != null) {
            int total = ByteBuffer.wrap(entry.value).getInt();
            InFlightPrompt prompt =
                new InFlightPrompt(key, record, pieces(total, PIECE_BYTES - 4), total, true);
            // Only later attempts are noted: the first may have begun.
            prompt.attempt = 1;
            found.put(key, prompt);
          }
        }
      }
    }
    try (KeyValueIterator<Bytes, byte[]> all = progress.all()) {
      Results results = new Results();
      while (all.hasNext()) {
        KeyValue<Bytes, byte[]> entry = all.next();
        InFlightPrompt prompt = found.get(PromptKey.of(entry.key));
        if (prompt != null) {
          prompt.earlierProgress.add(entry.key);
          restore(prompt, ByteBuffer.wrap(entry.value), results);
        }
      }
    }
    return new ArrayList<>(found.values());
  }

  private static void restore(InFlightPrompt prompt, ByteBuffer value, Results results) {
    switch (value.get()) {
      case ATTEMPT -> {
        prompt.attempt = Math.max(prompt.attempt, value.getInt());
        prompt.failures = Math.max(prompt.failures, value.getInt());
        if (value.hasRemaining()) {
          prompt.crashes = value.getInt();
          prompt.crashesAlone = value.getInt();
          prompt.crashedAt = value.getInt();
          prompt.alone = value.get() != 0;
        }
        if (value.hasRemaining()) {
          prompt.term = value.getInt();
        }
      }
      case TOKENS -> {
        prompt.attempt = Math.max(prompt.attempt, value.getInt());
        prompt.tokens.addSaved(value);
      }
      case RESULT -> {
        byte[] whole = results.add(prompt, value.getInt(), value.getInt(), value);
        if (whole != null) {
          prompt.outcome = Outcome.decode(whole);
        }
      }
      default ->
          throw new IllegalStateException(
              "the progress of the prompt at offset "
                  + prompt.key.offset()
                  + " was stored by a newer version: let that version finish it first");
    }
  }

  /**
   * Removes pieces that belong to no whole prompt: their record is read again. For the first
   * punctuation, since nothing may be written before.
   */
  void deleteOrphans(Set<PromptKey> whole) {
    for (KeyValueStore<Bytes, byte[]> store : List.of(prompts, progress)) {
      List<Bytes> orphans = new ArrayList<>();
      try (KeyValueIterator<Bytes, byte[]> all = store.all()) {
        while (all.hasNext()) {
          Bytes key = all.next().key;
          if (!whole.contains(PromptKey.of(key)) && !isOwner(key)) {
            orphans.add(key);
          }
        }
      }
      orphans.forEach(store::delete);
    }
  }

  private static int pieces(int bytes, int room) {
    return Math.max(1, Math.ceilDiv(bytes, room));
  }

  /** Puts the pieces of a result together; a result that lost its end is no result. */
  private static final class Results {
    private @Nullable InFlightPrompt of;
    private byte[] bytes = new byte[0];
    private int next;
    private int at;

    byte @Nullable [] add(InFlightPrompt prompt, int piece, int total, ByteBuffer value) {
      if (piece == 0) {
        of = prompt;
        bytes = new byte[total];
        next = 0;
        at = 0;
      }
      if (of != prompt || piece != next || bytes.length != total) {
        return null;
      }
      next++;
      int length = value.remaining();
      value.get(bytes, at, length);
      at += length;
      return at == total ? Arrays.copyOf(bytes, total) : null;
    }
  }
}
