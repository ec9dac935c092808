package dev.millrace.inference.engine;

import dev.millrace.inference.sampling.SamplingState;
import java.util.Arrays;
import org.jspecify.annotations.Nullable;

/**
 * A {@link Batch} and who is in it. Pooled: filled by the scheduler, in flight from submission
 * until its result was awaited, then filled again.
 */
final class Step {
  /** Rows of block tables are multiples of this, so that they stay as they are for many steps. */
  private static final int ROW_BLOCKS = 32;

  final Batch batch;
  long number;
  @Nullable StepHandle handle;

  /** [batch.sequences] the members, their epochs, their scheduled tokens after this step. */
  private final @Nullable Sequence[] members;

  private final int[] epochs;
  private final int[] ends;

  /** [batch.sequences] blocks that hold the member's tokens after this step. */
  private final int[] blockCounts;

  /** [batch.sequences] how many of them stand in its row since an earlier step. */
  private final int[] filled;

  /** [batch.sequences] logit row of the member, or -1. */
  private final int[] rows;

  private final int blockSize;
  private int mostBlocks;

  // How many of the step before it in this place have yet to be let go of.
  private int oldMembers;
  private int oldRows;

  Step(int maxSequences, int maxTokens, int blockSize) {
    // Block tables are filled and grown in seal().
    this.batch = new Batch(maxSequences, maxTokens, 1);
    this.members = new Sequence[maxSequences];
    this.epochs = new int[maxSequences];
    this.ends = new int[maxSequences];
    this.blockCounts = new int[maxSequences];
    this.filled = new int[maxSequences];
    this.rows = new int[maxSequences];
    this.blockSize = blockSize;
  }

  /** Empties it; it becomes the {@code number}-th step. */
  void clear(long number) {
    this.number = number;
    this.handle = null;
    oldMembers = Math.max(oldMembers, batch.sequences);
    oldRows = Math.max(oldRows, batch.logitCount);
    batch.sequences = 0;
    batch.tokenCount = 0;
    batch.logitCount = 0;
    mostBlocks = 1;
  }

  StepHandle handle() {
    if (handle == null) {
      throw new IllegalStateException("step " + number + " was not submitted");
    }
    return handle;
  }

  int size() {
    return batch.sequences;
  }

  Sequence member(int index) {
    Sequence sequence = members[index];
    if (sequence == null) {
      throw new IllegalStateException("step " + number + " has no member " + index);
    }
    return sequence;
  }

  /** See {@link SequenceState#glimpse}. */
  long glimpse() {
    long sum = 0;
    for (int i = 0; i < batch.sequences; i++) {
      sum += member(i).glimpse();
    }
    return sum;
  }

  /** Whether the member has neither ended nor restarted since the step was planned. */
  boolean valid(int index) {
    return member(index).epoch == epochs[index];
  }

  int end(int index) {
    return ends[index];
  }

  int row(int index) {
    return rows[index];
  }

  /**
   * Adds the next {@code count} tokens of a sequence, whose blocks are there. If these are all that
   * it has, its next token is sampled.
   */
  void add(Sequence sequence, int count) {
    int index = batch.sequences++;
    int from = sequence.scheduled;
    int to = from + count;
    int first = batch.tokenCount;
    int known = Math.min(to, sequence.length());
    if (from < known) {
      sequence.copyTokens(from, known, batch.tokens, first);
      Arrays.fill(batch.tokenFrom, first, first + known - from, -1);
    }
    if (known < to) {
      // Only the step before this one can still be in flight, so only one token is not known.
      if (to - known > 1 || sequence.rowStep != number - 1) {
        throw new IllegalStateException(sequence + " needs tokens that no step supplies");
      }
      batch.tokens[first + count - 1] = 0;
      batch.tokenFrom[first + count - 1] = sequence.row;
    }
    int block = from / blockSize;
    int offset = from - block * blockSize;
    for (int i = 0; i < count; i++, offset++) {
      if (offset == blockSize) {
        offset = 0;
        block++;
      }
      batch.positions[first + i] = from + i;
      // A decode's is the last: its number stands in the sequence.
      int at = block + 1 == sequence.blockCount ? sequence.lastBlock : sequence.blocks[block];
      batch.slots[first + i] = at * blockSize + offset;
    }
    batch.queryStart[index] = first;
    batch.tokenCount = first + count;
    batch.queryStart[index + 1] = batch.tokenCount;
    batch.contextLength[index] = to;
    blockCounts[index] = block + 1;
    mostBlocks = Math.max(mostBlocks, block + 1);

    rows[index] = -1;
    if (to == sequence.planned()) {
      int row = batch.logitCount++;
      rows[index] = row;
      batch.logitRows[row] = batch.tokenCount - 1;
      SamplingState sampling = sequence.sampling();
      if (batch.sampling[row] != sampling) {
        batch.sampling[row] = sampling;
      }
      sequence.row = row;
      sequence.rowStep = number;
      sequence.pending++;
    }
    sequence.scheduled = to;
    if (members[index] != sequence) {
      members[index] = sequence;
      filled[index] = 0;
    } else if (epochs[index] != sequence.epoch) {
      filled[index] = 0;
    }
    epochs[index] = sequence.epoch;
    ends[index] = to;
  }

  /**
   * Fills the block tables, now that the longest is known, and lets go of who left. Where the
   * member of a row is the one of the last step in this place, only new blocks are written.
   */
  void seal() {
    // Prompts can be large: none is kept alive by a pooled step.
    Arrays.fill(members, batch.sequences, Math.max(oldMembers, batch.sequences), null);
    SamplingState[] sampling = batch.sampling;
    Arrays.fill(sampling, batch.logitCount, Math.max(oldRows, batch.logitCount), null);
    oldMembers = 0;
    oldRows = 0;
    int length = Math.ceilDiv(mostBlocks, ROW_BLOCKS) * ROW_BLOCKS;
    int size = Math.multiplyExact(batch.sequences, length);
    boolean grow = batch.blockTable.length < size;
    if (grow) {
      batch.blockTable = new int[Math.max(size, (int) Math.min(1 << 30, size * 3L / 2))];
    }
    if (grow || length != batch.maxBlocks) {
      Arrays.fill(filled, 0);
    }
    batch.maxBlocks = length;
    for (int i = 0; i < batch.sequences; i++) {
      int from = filled[i];
      int count = blockCounts[i];
      if (from < count) {
        System.arraycopy(member(i).blocks, from, batch.blockTable, i * length + from, count - from);
        filled[i] = count;
      }
    }
  }
}
