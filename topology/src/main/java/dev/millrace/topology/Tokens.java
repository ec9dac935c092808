package dev.millrace.topology;

import java.nio.ByteBuffer;
import java.util.Arrays;

/** A growing list of token ids, and how many of them are saved. */
final class Tokens {
  private int[] ids = new int[0];
  private int size;
  private int saved;

  /** Saved for certain; saved, and durable after more than so many commits. */
  private int durable;

  private int pending;
  private long pendingAt = -1;

  int size() {
    return size;
  }

  int unsaved() {
    return size - saved;
  }

  /** Tokens that a crash now would cost at most. */
  int atRisk(long commits) {
    settle(commits);
    return size - durable;
  }

  /** Tokens that a crash now would not cost. */
  int durable(long commits) {
    settle(commits);
    return durable;
  }

  private void settle(long commits) {
    if (commits > pendingAt) {
      durable = pending;
    }
  }

  void add(int[] more) {
    if (size + more.length > ids.length) {
      ids = Arrays.copyOf(ids, Math.max(size + more.length, 16 + 2 * size));
    }
    System.arraycopy(more, 0, ids, size, more.length);
    size += more.length;
  }

  int[] toArray() {
    return Arrays.copyOf(ids, size);
  }

  /**
   * The unsaved ones, which count as saved from now on: kind, attempt, index of the first, then the
   * ids as variable-length integers.
   *
   * @param commits so far
   */
  byte[] takeUnsaved(byte kind, int attempt, long commits) {
    settle(commits);
    ByteBuffer out = ByteBuffer.allocate(1 + 4 + 4 + 5 * unsaved());
    out.put(kind).putInt(attempt).putInt(saved);
    for (int i = saved; i < size; i++) {
      int id = ids[i];
      while ((id & ~0x7F) != 0) {
        out.put((byte) (id & 0x7F | 0x80));
        id >>>= 7;
      }
      out.put((byte) id);
    }
    saved = size;
    pending = size;
    pendingAt = commits;
    return Arrays.copyOf(out.array(), out.position());
  }

  /**
   * Adds what {@link #takeUnsaved} wrote, after kind and attempt; they count as saved. Two owners
   * of a task may both have saved for a while: those of the later one, which are read later, take
   * the place of the other's from where it took over. What does not follow on the tokens that are
   * here is left out, to be generated again.
   */
  void addSaved(ByteBuffer in) {
    int first = in.getInt();
    int[] read = new int[in.remaining()];
    int count = 0;
    while (in.hasRemaining()) {
      int id = 0;
      byte b;
      int shift = 0;
      do {
        b = in.get();
        id |= (b & 0x7F) << shift;
        shift += 7;
      } while (b < 0);
      read[count++] = id;
    }
    if (first <= size) {
      size = first;
      add(Arrays.copyOf(read, count));
    }
    saved = size;
    durable = size;
    pending = size;
  }
}
