package dev.millrace.topology;

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.time.Duration;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.state.KeyValueIterator;
import org.apache.kafka.streams.state.KeyValueStore;

/**
 * The ids of prompts that ended within the retention time, so that a second prompt with the same id
 * is not answered again; and the ids of cancel events whose prompt has not come yet. Kept in the
 * changelogged store {@code seen}: answered ids many to a record, since there is one for every
 * prompt. Also the records of prompts that ended before their offset was committed. An id is kept
 * as the first 128 bits of its SHA-256. Belongs to the stream thread.
 */
final class SeenIds {
  /** The first 128 bits of an id's SHA-256. */
  record Hash(long high, long low) {
    static Hash of(String id) {
      ByteBuffer bytes = ByteBuffer.wrap(sha256().digest(id.getBytes(StandardCharsets.UTF_8)));
      return new Hash(bytes.getLong(), bytes.getLong());
    }
  }

  /** Never fed: others are copied from it. */
  private static final MessageDigest SHA_256 = newSha256();

  private static final byte PAGE = 'P';
  private static final byte CANCEL = 'C';
  private static final byte UNREAD = 'U';
  private static final byte RECORD = 'R';

  /** Cancels are kept even where no answered ids are. */
  private static final int LEAST_CANCELS = 10_000;

  /** Bounds what an outage of the registry can pile up. */
  private static final int MOST_UNREAD = 10_000;

  private static final int MOST_UNREAD_BYTES = 16 * 1024;
  private static final int HASH_BYTES = 16;
  private static final byte[] NOTHING = {};

  /** Keeps a page below a store's piece, and below any broker's default limit. */
  private static final int MOST_PER_PAGE = 4096;

  private record Page(Bytes key, long time, List<Hash> ids) {}

  private final KeyValueStore<Bytes, byte[]> store;
  private final Duration retention;
  private final int maxIds;
  private final Set<Hash> answered = new HashSet<>();
  private final ArrayDeque<Page> pages = new ArrayDeque<>();

  /** When each came, eldest first. */
  private final Map<Hash, Long> cancels = new LinkedHashMap<>();

  /** Cancel events as they came, which nobody could read yet. */
  private final TreeMap<Long, Bytes> unread = new TreeMap<>();

  /** Records whose prompts have ended, and which are still to be read. */
  private final TreeSet<PromptKey> records = new TreeSet<>();

  private final List<Hash> pending = new ArrayList<>();
  private int counter;

  SeenIds(ProcessorContext<?, ?> context, WorkerConfig.Dedup settings) {
    this.store = context.getStateStore(InFlightStore.SEEN);
    this.retention = settings.retention();
    this.maxIds = settings.maxIds();
  }

  /** Reads what an earlier owner of the task left; to be called once, before anything else. */
  void load() {
    List<Map.Entry<Hash, Long>> found = new ArrayList<>();
    try (KeyValueIterator<Bytes, byte[]> all = store.all()) {
      while (all.hasNext()) {
        restore(all.next(), found);
      }
    }
    found.sort(Map.Entry.comparingByValue());
    found.forEach(cancel -> cancels.put(cancel.getKey(), cancel.getValue()));
  }

  private void restore(KeyValue<Bytes, byte[]> entry, List<Map.Entry<Hash, Long>> cancelled) {
    ByteBuffer key = ByteBuffer.wrap(entry.key.get());
    byte kind = key.get();
    if (kind == CANCEL) {
      cancelled.add(
          Map.entry(
              new Hash(key.getLong(), key.getLong()), ByteBuffer.wrap(entry.value).getLong()));
      return;
    }
    if (kind == UNREAD) {
      unread.put(key.getLong(), entry.key);
      return;
    }
    if (kind == RECORD) {
      records.add(new PromptKey(key.getLong(), key.getInt()));
      return;
    }
    long time = key.getLong();
    counter = Math.max(counter, key.getInt() + 1);
    ByteBuffer value = ByteBuffer.wrap(entry.value);
    List<Hash> ids = new ArrayList<>(value.remaining() / HASH_BYTES);
    while (value.hasRemaining()) {
      ids.add(new Hash(value.getLong(), value.getLong()));
    }
    answered.addAll(ids);
    pages.add(new Page(entry.key, time, ids));
  }

  /** Whether a prompt with this id was answered within the retention time. */
  boolean answered(Hash id) {
    return answered.contains(id);
  }

  /**
   * Remembers an answered id. Only for prompts whose answer is known to be durable, or goes into
   * the same transaction: a replayed prompt must not be taken for a duplicate of itself.
   */
  void remember(Hash id) {
    if (maxIds > 0 && answered.add(id)) {
      pending.add(id);
    }
  }

  /**
   * Writes what was remembered since. To be called at the end of each turn of the stream thread.
   */
  void flush(long now) {
    for (int from = 0; from < pending.size(); from += MOST_PER_PAGE) {
      List<Hash> ids =
          List.copyOf(pending.subList(from, Math.min(pending.size(), from + MOST_PER_PAGE)));
      ByteBuffer value = ByteBuffer.allocate(ids.size() * HASH_BYTES);
      ids.forEach(id -> value.putLong(id.high()).putLong(id.low()));
      Bytes key =
          Bytes.wrap(ByteBuffer.allocate(13).put(PAGE).putLong(now).putInt(counter++).array());
      store.put(key, value.array());
      pages.add(new Page(key, now, ids));
    }
    pending.clear();
  }

  /** Remembers that a record's prompt has ended, until {@link #forgetRecords}. */
  void rememberRecord(PromptKey record) {
    if (records.add(record)) {
      store.put(recordKey(record), NOTHING);
    }
  }

  /** Whether a record's prompt has ended before the record is read. */
  boolean ended(PromptKey record) {
    return records.contains(record);
  }

  /** The offsets of all records up to this one are committed: they are not read again. */
  void forgetRecords(long offset) {
    while (!records.isEmpty() && records.first().offset() <= offset) {
      store.delete(recordKey(records.removeFirst()));
    }
  }

  private static Bytes recordKey(PromptKey record) {
    return Bytes.wrap(
        ByteBuffer.allocate(1 + PromptKey.BYTES)
            .put(RECORD)
            .putLong(record.offset())
            .putInt(record.checksum())
            .array());
  }

  /** Remembers that a prompt which has not come yet is to be cancelled when it does. */
  void rememberCancel(String id, long now) {
    Hash hash = Hash.of(id);
    // Taken out first, so that it goes to the end.
    cancels.remove(hash);
    cancels.put(hash, now);
    store.put(cancelKey(hash), ByteBuffer.allocate(8).putLong(now).array());
    if (cancels.size() > Math.max(maxIds, LEAST_CANCELS)) {
      forgetEldestCancel();
    }
  }

  private void forgetEldestCancel() {
    Hash eldest = cancels.keySet().iterator().next();
    cancels.remove(eldest);
    store.delete(cancelKey(eldest));
  }

  /**
   * Keeps a cancel event that cannot be read now, until {@link #takeUnread}.
   *
   * @param record all of it, encoded: a header may name what it takes to read it
   * @return false if it is too large, or there are too many
   */
  boolean keepUnread(long offset, byte[] record) {
    if (record.length > MOST_UNREAD_BYTES || unread.size() >= MOST_UNREAD) {
      return false;
    }
    Bytes key = Bytes.wrap(ByteBuffer.allocate(9).put(UNREAD).putLong(offset).array());
    unread.put(offset, key);
    store.put(key, record);
    return true;
  }

  /**
   * Hands each kept cancel event to a reader, oldest first, and forgets those that it has dealt
   * with; ends at the first that it has not.
   */
  void takeUnread(UnreadCancel reader) {
    while (!unread.isEmpty()) {
      Map.Entry<Long, Bytes> eldest = unread.firstEntry();
      byte[] record = store.get(eldest.getValue());
      if (record != null && !reader.dealtWith(record)) {
        return;
      }
      unread.pollFirstEntry();
      store.delete(eldest.getValue());
    }
  }

  /** Reads a kept cancel event. */
  interface UnreadCancel {
    /** Whether it needs to be kept no longer. */
    boolean dealtWith(byte[] record);
  }

  /** Whether this prompt is to be cancelled. */
  boolean cancelled(String id) {
    return !cancels.isEmpty() && cancels.containsKey(Hash.of(id));
  }

  /**
   * Forgets that a prompt is to be cancelled. Only when its answer is known to be durable: its
   * record may be read again until then, and the cancel event will not. Or when it becomes a dead
   * letter, since a corrected prompt may come under its id.
   */
  void forgetCancel(String id) {
    if (!cancels.isEmpty()) {
      Hash hash = Hash.of(id);
      if (cancels.remove(hash) != null) {
        store.delete(cancelKey(hash));
      }
    }
  }

  /** Forgets what is older than the retention time or beyond the limit. */
  void expire(long now) {
    long oldest = now - retention.toMillis();
    while (!pages.isEmpty() && (pages.getFirst().time() < oldest || answered.size() > maxIds)) {
      Page page = pages.removeFirst();
      page.ids().forEach(answered::remove);
      store.delete(page.key());
    }
    while (!cancels.isEmpty() && cancels.values().iterator().next() < oldest) {
      forgetEldestCancel();
    }
  }

  private static Bytes cancelKey(Hash hash) {
    return Bytes.wrap(
        ByteBuffer.allocate(1 + HASH_BYTES)
            .put(CANCEL)
            .putLong(hash.high())
            .putLong(hash.low())
            .array());
  }

  static MessageDigest sha256() {
    try {
      // Looking the algorithm up takes longer than a short text's digest.
      return (MessageDigest) SHA_256.clone();
    } catch (CloneNotSupportedException e) {
      throw new IllegalStateException("this Java's SHA-256 cannot be copied", e);
    }
  }

  private static MessageDigest newSha256() {
    try {
      return MessageDigest.getInstance("SHA-256");
    } catch (NoSuchAlgorithmException e) {
      throw new IllegalStateException("every Java has SHA-256", e);
    }
  }
}
