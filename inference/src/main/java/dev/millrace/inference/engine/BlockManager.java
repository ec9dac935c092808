package dev.millrace.inference.engine;

import java.security.SecureRandom;
import java.util.Arrays;
import java.util.stream.IntStream;
import org.jspecify.annotations.Nullable;

/**
 * Who holds which KV block: reference counts, reservations, and a cache of full blocks that later
 * sequences with the same beginning share. Plain bookkeeping, of the engine thread.
 *
 * <p>Admission reserves what the known tokens of a sequence need, and before each step what that
 * step adds is reserved; blocks are taken when they are reached, so that the cache lives in what is
 * reserved but not used yet.
 *
 * <p>A cached block is known by its content: a number never used twice, given to (content of the
 * block before it, its tokens). A look-up compares both, so that no collision of hashes can hand
 * out wrong content. A block becomes shareable when its keys and values are computed ({@link
 * #computed}), is never written again, and stays cached when nobody holds it until its memory is
 * needed, longest unused first.
 */
final class BlockManager {
  private static final long ROOT = 1;
  private static final int NONE = -1;

  /** Numbers of an entry, and where all but the first stand in it. */
  private static final int ENTRY = 4;

  private static final int PARENT = 1;
  private static final int BUCKET = 2;
  private static final int CHAINED = 3;

  /** Places for the numbers of blocks to come. */
  private static final int ROOM = 16;

  private final int blockSize;
  private final boolean cache;

  /** [block] sequences that hold it. */
  private final int[] references;

  /**
   * [block · ENTRY + …] what a shareable block contains, or 0; the content before it; its bucket;
   * the next in its hash chain. Together, as they are looked at: each look is at memory that the
   * processor does not have at hand.
   */
  private final long[] entries;

  /** [block · blockSize + offset] the tokens of a shareable block. */
  private final int[] tokens;

  private long contents = ROOT;

  /** [bucket] first block of the hash chain. */
  private final int[] heads;

  /** Nobody can write prompts that all fall into one bucket. */
  private final long salt = new SecureRandom().nextLong();

  /** [block] neighbours in the ring of blocks that nobody holds, next to be taken first. */
  private final int[] next;

  private final int[] previous;
  private final int ring;
  private int free;
  private int reserved;

  /** The tokens of a sequence's block that is looked for. */
  private final int[] wanted;

  // What the last look at a sequence found: its cached blocks, how many of them nobody holds, and
  // the content of the last.
  private final int[] hits;
  private int found;
  private int foundFree;
  private long foundChain;

  BlockManager(int blockCount, int blockSize, boolean cache) {
    this.blockSize = blockSize;
    this.cache = cache;
    this.references = new int[blockCount];
    this.entries = new long[Math.multiplyExact(blockCount, ENTRY)];
    this.tokens = new int[cache ? Math.multiplyExact(blockCount, blockSize) : 0];
    this.heads = new int[Integer.highestOneBit(blockCount) * 2];
    Arrays.fill(heads, NONE);
    this.next = new int[blockCount + 1];
    this.previous = new int[blockCount + 1];
    this.ring = blockCount;
    this.next[ring] = ring;
    this.previous[ring] = ring;
    this.hits = new int[blockCount];
    this.wanted = new int[blockSize];
    for (int block = 0; block < blockCount; block++) {
      link(previous[ring], block);
    }
    this.free = blockCount;
  }

  int blocksFor(int tokenCount) {
    return Math.ceilDiv(tokenCount, blockSize);
  }

  /** Blocks that nobody holds; some are reserved. */
  int free() {
    return free;
  }

  int reserved() {
    return reserved;
  }

  int count() {
    return references.length;
  }

  int blockSize() {
    return blockSize;
  }

  /** Blocks that nobody holds and nobody has reserved. */
  int available() {
    return free - reserved;
  }

  /**
   * Looks for the cached blocks of a sequence's beginning. At least one known token is left to
   * compute.
   *
   * @return blocks that its known tokens would take beside those that others hold; more than {@link
   *     #available} where that is too many
   */
  int probe(Sequence sequence) {
    int needed = blocksFor(sequence.length());
    int mostHits = cache ? (sequence.length() - 1) / blockSize : 0;
    found = 0;
    foundFree = 0;
    foundChain = ROOT;
    if (needed - mostHits > available()) {
      return needed - mostHits;
    }
    while (found < mostHits) {
      want(sequence, found);
      int block = find(bucket(foundChain), foundChain);
      if (block == NONE) {
        break;
      }
      hits[found++] = block;
      foundFree += references[block] == 0 ? 1 : 0;
      foundChain = content(block);
    }
    return needed - found + foundFree;
  }

  /**
   * Gives a sequence what {@link #probe} has just found of it, and reserves the rest that its known
   * tokens need.
   *
   * @return tokens found in the cache
   */
  int admit(Sequence sequence) {
    int needed = blocksFor(sequence.length());
    int fresh = needed - found;
    if (fresh + foundFree > available()) {
      throw new IllegalStateException(sequence + " does not fit");
    }
    // An answer's blocks come one by one: some room for them.
    int most = blocksFor(sequence.limit - 1);
    if (sequence.blocks.length < needed) {
      sequence.blocks = new int[Math.min(most, needed + ROOM)];
    }
    for (int i = 0; i < found; i++) {
      hold(hits[i]);
      sequence.blocks[i] = hits[i];
    }
    sequence.blockCount = found;
    sequence.lastBlock = found == 0 ? NONE : hits[found - 1];
    sequence.shareable = found;
    sequence.chain = foundChain;
    sequence.reserved = fresh;
    sequence.owned = fresh + foundFree;
    reserved += fresh;
    return found * blockSize;
  }

  /** Whether the sequence has blocks for its first {@code tokenCount} tokens. */
  boolean covers(Sequence sequence, int tokenCount) {
    return (long) (sequence.blockCount + sequence.reserved) * blockSize >= tokenCount;
  }

  /**
   * Reserves the block that the sequence's first {@code tokenCount} tokens need beyond those that
   * it has, if they need one.
   *
   * @return false if none is available
   */
  boolean extend(Sequence sequence, int tokenCount) {
    if (covers(sequence, tokenCount)) {
      return true;
    }
    if (available() == 0) {
      return false;
    }
    int has = sequence.blockCount + sequence.reserved;
    if (has == sequence.blocks.length) {
      int most = blocksFor(sequence.limit - 1);
      int more = Math.max(ROOM, has >> 1);
      sequence.blocks = Arrays.copyOf(sequence.blocks, Math.min(most, has + more));
    }
    sequence.reserved++;
    sequence.owned++;
    reserved++;
    return true;
  }

  /** Makes the sequence hold blocks for its first {@code tokenCount} tokens, out of its reserve. */
  void grow(Sequence sequence, int tokenCount) {
    while ((long) sequence.blockCount * blockSize < tokenCount) {
      if (sequence.reserved == 0) {
        throw new IllegalStateException(sequence + " asks for more blocks than it reserved");
      }
      int block = next[ring];
      unshare(block);
      hold(block);
      sequence.blocks[sequence.blockCount++] = block;
      sequence.lastBlock = block;
      sequence.reserved--;
      reserved--;
    }
  }

  /**
   * The sequence's first {@code tokenCount} tokens are computed: full blocks become shareable.
   *
   * @return how many are to be computed before there is anything to do here again
   */
  int computed(Sequence sequence, int tokenCount) {
    if (!cache) {
      return Integer.MAX_VALUE;
    }
    for (; (sequence.shareable + 1L) * blockSize <= tokenCount; sequence.shareable++) {
      int index = sequence.shareable;
      want(sequence, index);
      int home = bucket(sequence.chain);
      int known = find(home, sequence.chain);
      if (known == NONE) {
        known = sequence.blocks[index];
        share(known, home, sequence.chain);
      }
      // Where another sequence was first this block stays private; the content is the same.
      sequence.chain = content(known);
    }
    return (sequence.shareable + 1) * blockSize;
  }

  /** Takes back all blocks and the reservation of a sequence. */
  void release(Sequence sequence) {
    // Last block first: of a cached beginning the end goes before what it hangs on.
    for (int i = sequence.blockCount - 1; i >= 0; i--) {
      int block = sequence.blocks[i];
      if (--references[block] == 0) {
        free++;
        link(content(block) == 0 ? ring : previous[ring], block);
      }
    }
    reserved -= sequence.reserved;
    sequence.reserved = 0;
    sequence.owned = 0;
    sequence.blockCount = 0;
    sequence.shareable = 0;
    sequence.blocks = Sequence.NO_BLOCKS;
  }

  /** Takes what a sequence holds out of the cache, since its content is in doubt. */
  void forget(Sequence sequence) {
    for (int i = 0; i < sequence.blockCount; i++) {
      unshare(sequence.blocks[i]);
    }
  }

  /** Sequences that hold a block. */
  int references(int block) {
    return references[block];
  }

  /** The tokens of a shareable block, or null. */
  int @Nullable [] shareableTokens(int block) {
    return content(block) == 0
        ? null
        : Arrays.copyOfRange(tokens, block * blockSize, (block + 1) * blockSize);
  }

  /** The blocks that nobody holds, next to be taken first. */
  int[] freeBlocks() {
    return IntStream.iterate(next[ring], block -> block != ring, block -> next[block]).toArray();
  }

  private void hold(int block) {
    if (references[block]++ == 0) {
      free--;
      next[previous[block]] = next[block];
      previous[next[block]] = previous[block];
    }
  }

  private void link(int after, int block) {
    next[block] = next[after];
    previous[block] = after;
    previous[next[after]] = block;
    next[after] = block;
  }

  /** What a block contains; 0: it is not shareable. */
  private long content(int block) {
    return entries[block * ENTRY];
  }

  /** Turns to a block of a sequence, whose tokens are known. */
  private void want(Sequence sequence, int index) {
    sequence.copyTokens(index * blockSize, (index + 1) * blockSize, wanted, 0);
  }

  /** The wanted block stands there. */
  private void share(int block, int home, long chain) {
    int entry = block * ENTRY;
    entries[entry] = ++contents;
    entries[entry + PARENT] = chain;
    entries[entry + BUCKET] = home;
    entries[entry + CHAINED] = heads[home];
    heads[home] = block;
    System.arraycopy(wanted, 0, tokens, block * blockSize, blockSize);
  }

  private void unshare(int block) {
    if (content(block) == 0) {
      return;
    }
    entries[block * ENTRY] = 0;
    int home = (int) entries[block * ENTRY + BUCKET];
    int after = chained(block);
    if (heads[home] == block) {
      heads[home] = after;
      return;
    }
    int before = heads[home];
    while (chained(before) != block) {
      before = chained(before);
    }
    entries[before * ENTRY + CHAINED] = after;
  }

  private int chained(int block) {
    return (int) entries[block * ENTRY + CHAINED];
  }

  /**
   * The shareable block with the wanted tokens behind the content {@code chain}.
   *
   * @param home its {@link #bucket}
   */
  private int find(int home, long chain) {
    int block = heads[home];
    while (block != NONE && !holds(block, chain)) {
      block = chained(block);
    }
    return block;
  }

  private boolean holds(int block, long chain) {
    int first = block * blockSize;
    return entries[block * ENTRY + PARENT] == chain
        && Arrays.equals(tokens, first, first + blockSize, wanted, 0, blockSize);
  }

  private int bucket(long chain) {
    long hash = chain ^ salt;
    for (int token : wanted) {
      hash = (hash ^ token) * 0x9E3779B97F4A7C15L;
      hash ^= hash >>> 29;
    }
    return (int) hash & (heads.length - 1);
  }
}
