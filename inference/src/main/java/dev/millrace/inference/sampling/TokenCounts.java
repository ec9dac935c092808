package dev.millrace.inference.sampling;

import java.util.Arrays;

/**
 * The distinct tokens of a sequence with a count each, in the order of their first occurrence, so
 * that penalties cost what is distinct and not what is long.
 */
public final class TokenCounts {
  private int[] tokens;
  private int[] counts;
  private int size;

  /** Open addressing, at most half full: index into tokens + 1, 0 is empty. */
  private int[] table;

  /**
   * @param expected tokens that come soon; distinct ones may be far fewer
   */
  TokenCounts(int expected) {
    int capacity = Math.clamp(expected, 16, 1024);
    this.tokens = new int[capacity];
    this.counts = new int[capacity];
    this.table = new int[Integer.highestOneBit(capacity) * 4];
  }

  /** Distinct tokens. */
  public int size() {
    return size;
  }

  /** The index-th of them. */
  public int token(int index) {
    return tokens[index];
  }

  /** How often the output has the index-th. */
  public int count(int index) {
    return counts[index];
  }

  void add(int token, int count) {
    int slot = slot(token);
    if (table[slot] == 0) {
      if (size == tokens.length) {
        grow();
        slot = slot(token);
      }
      tokens[size] = token;
      counts[size] = 0;
      table[slot] = ++size;
    }
    counts[table[slot] - 1] += count;
  }

  private int slot(int token) {
    int mask = table.length - 1;
    int slot = (token * 0x9E3779B9 >>> 8) & mask;
    while (table[slot] != 0 && tokens[table[slot] - 1] != token) {
      slot = (slot + 1) & mask;
    }
    return slot;
  }

  private void grow() {
    tokens = Arrays.copyOf(tokens, size * 2);
    counts = Arrays.copyOf(counts, size * 2);
    table = new int[Integer.highestOneBit(size * 2) * 4];
    for (int i = 0; i < size; i++) {
      table[slot(tokens[i])] = i + 1;
    }
  }
}
