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

  private final Lanes lanes;

  /** [batch.sequences] the members' lanes, and their stays there. */
  private final int[] members;

  private final long[] stays;

  /** [batch.sequences] blocks that hold the member's tokens after this step. */
  private final int[] blockCounts;

  /** [batch.sequences] how many of them stand in its row since an earlier step. */
  private final int[] filled;

  /** [batch.sequences] logit row of the member, or -1. */
  private final int[] rows;

  /** Members whose listeners are to hear that they begin. */
  private final int[] beginners;

  private int beginnerCount;
  private final int blockSize;
  private int mostBlocks;

  /** Of the step before it in this place: rows that have yet to be let go of, and members. */
  private int oldRows;

  private int oldMembers;

  Step(Lanes lanes, int maxSequences, int maxTokens, int blockSize) {
    this.lanes = lanes;
    // Block tables are filled and grown in seal().
    this.batch = new Batch(maxSequences, maxTokens, 1);
    this.members = new int[maxSequences];
    this.stays = new long[maxSequences];
    this.blockCounts = new int[maxSequences];
    this.filled = new int[maxSequences];
    this.rows = new int[maxSequences];
    this.beginners = new int[maxSequences];
    this.blockSize = blockSize;
  }

  /** Empties it; it becomes the {@code number}-th step. */
  void clear(long number) {
    this.number = number;
    this.handle = null;
    oldRows = Math.max(oldRows, batch.logitCount);
    oldMembers = Math.max(oldMembers, batch.sequences);
    batch.sequences = 0;
    batch.tokenCount = 0;
    batch.logitCount = 0;
    mostBlocks = 1;
    beginnerCount = 0;
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

  /** A member that is {@link #valid}. */
  Sequence member(int index) {
    return lanes.sequence(members[index]);
  }

  int lane(int index) {
    return members[index];
  }

  /** Whether the member has neither ended nor restarted since the step was planned. */
  boolean valid(int index) {
    return lanes.stay[members[index]] == stays[index];
  }

  /** See {@link Lanes#glimpse}. */
  void glimpse() {
    lanes.glimpse(members, batch.sequences);
  }

  /**
   * The tokens of all {@link #valid} members are computed.
   *
   * @param due takes the lanes that the scheduler has to look at now, for which it has room
   * @return how many those are
   */
  int computed(int[] due) {
    int count = 0;
    long[] stay = lanes.stay;
    int[] computed = lanes.computed;
    int[] watched = lanes.watched;
    int[] ends = batch.contextLength;
    for (int i = 0; i < batch.sequences; i++) {
      int lane = members[i];
      if (stay[lane] == stays[i]) {
        computed[lane] = ends[i];
        if (ends[i] >= watched[lane]) {
          due[count++] = lane;
        }
      }
    }
    return count;
  }

  /** Tells the listeners of those of which the first tokens are about to be computed. */
  void tellBeginners() {
    for (int i = 0; i < beginnerCount; i++) {
      if (valid(beginners[i])) {
        member(beginners[i]).tellStarted();
      }
    }
  }

  /** The member's tokens that are computed after this. */
  int end(int index) {
    return batch.contextLength[index];
  }

  int row(int index) {
    return rows[index];
  }

  /**
   * Adds the next token of each of some lanes, all of which just decode ({@link Lanes#decoding});
   * the one after it is sampled. One array after another: in a step of many it is these loops that
   * the host spends its time in.
   */
  void decode(int[] decoding, int begin, int end) {
    int count = end - begin;
    tokens(decoding, begin, count);
    places(decoding, begin, count);
    members(decoding, begin, count);
    batch.sequences += count;
    batch.tokenCount += count;
    batch.logitCount += count;
  }

  /** Which tokens: those that are not known come from the step before. */
  private void tokens(int[] decoding, int begin, int count) {
    int first = batch.tokenCount;
    int[] tokens = batch.tokens;
    int[] tokenFrom = batch.tokenFrom;
    int[] scheduled = lanes.scheduled;
    int[] known = lanes.known;
    int[] row = lanes.row;
    long[] rowStep = lanes.rowStep;
    for (int i = 0; i < count; i++) {
      int lane = decoding[begin + i];
      if (scheduled[lane] < known[lane]) {
        tokens[first + i] = lanes.token(lane, scheduled[lane]);
        tokenFrom[first + i] = -1;
      } else {
        if (rowStep[lane] != number - 1) {
          throw noSupplier(lane);
        }
        tokens[first + i] = 0;
        tokenFrom[first + i] = row[lane];
      }
    }
  }

  /** Where their tokens stand, and their keys and values go. */
  private void places(int[] decoding, int begin, int count) {
    int first = batch.tokenCount;
    int member = batch.sequences;
    int[] positions = batch.positions;
    int[] slots = batch.slots;
    int[] context = batch.contextLength;
    int[] scheduled = lanes.scheduled;
    int[] bases = lanes.slots;
    int[] blocks = lanes.blocks;
    int most = mostBlocks;
    for (int i = 0; i < count; i++) {
      int lane = decoding[begin + i];
      int from = scheduled[lane];
      positions[first + i] = from;
      slots[first + i] = bases[lane] + from;
      context[member + i] = from + 1;
      scheduled[lane] = from + 1;
      blockCounts[member + i] = blocks[lane];
      most = Math.max(most, blocks[lane]);
    }
    mostBlocks = most;
  }

  /** Who they are, and their rows of logits. */
  private void members(int[] decoding, int begin, int count) {
    int member = batch.sequences;
    int token = batch.tokenCount;
    int row = batch.logitCount;
    int[] rowOf = lanes.row;
    long[] rowStep = lanes.rowStep;
    int[] planned = lanes.planned;
    for (int i = 0; i < count; i++, member++, row++) {
      int lane = decoding[begin + i];
      boolean same =
          members[member] == lane && stays[member] == lanes.stay[lane] && rows[member] == row;
      if (!same) {
        come(member, lane);
        rows[member] = row;
        batch.sampling[row] = lanes.sampling(lane);
      }
      batch.queryStart[member] = token + i;
      batch.logitRows[row] = token + i;
      rowOf[lane] = row;
      rowStep[lane] = number;
      planned[lane]++;
    }
    batch.queryStart[member] = token + count;
  }

  /**
   * Adds the next {@code count} tokens of a sequence, whose blocks are there. If these are all that
   * it has, its next token is sampled.
   */
  void add(Sequence sequence, int count) {
    int lane = sequence.lane;
    int from = sequence.scheduled();
    int to = from + count;
    int first = batch.tokenCount;
    int known = Math.min(to, sequence.length());
    if (from < known) {
      sequence.copyTokens(from, known, batch.tokens, first);
      Arrays.fill(batch.tokenFrom, first, first + known - from, -1);
    }
    if (known < to) {
      if (to - known > 1) {
        throw noSupplier(lane);
      }
      batch.tokens[first + count - 1] = 0;
      batch.tokenFrom[first + count - 1] = supplier(lane);
    }
    int block = from / blockSize;
    int offset = from - block * blockSize;
    for (int i = 0; i < count; i++, offset++) {
      if (offset == blockSize) {
        offset = 0;
        block++;
      }
      batch.positions[first + i] = from + i;
      batch.slots[first + i] = sequence.blocks[block] * blockSize + offset;
    }
    if (!sequence.started) {
      beginners[beginnerCount++] = batch.sequences;
    }
    join(lane, count, block + 1);
    if (to == sequence.planned()) {
      sample(lane);
    }
  }

  /** The logit row of the step before that draws the lane's next token, which is not known. */
  private int supplier(int lane) {
    // Only the step before this one can still be in flight, so only one token is not known.
    if (lanes.rowStep[lane] != number - 1) {
      throw noSupplier(lane);
    }
    return lanes.row[lane];
  }

  private IllegalStateException noSupplier(int lane) {
    return new IllegalStateException(lanes.sequence(lane) + " needs tokens that no step supplies");
  }

  /** Adds a member with so many tokens, which are there, and blocks. */
  private void join(int lane, int count, int blocks) {
    int index = batch.sequences++;
    int to = lanes.scheduled[lane] + count;
    batch.queryStart[index] = batch.tokenCount;
    batch.tokenCount += count;
    batch.queryStart[index + 1] = batch.tokenCount;
    batch.contextLength[index] = to;
    blockCounts[index] = blocks;
    mostBlocks = Math.max(mostBlocks, blocks);
    rows[index] = -1;
    lanes.scheduled[lane] = to;
    come(index, lane);
  }

  /** A lane's row of the block table stays as it is where it was there in the step before. */
  private void come(int index, int lane) {
    if (members[index] != lane || stays[index] != lanes.stay[lane]) {
      members[index] = lane;
      stays[index] = lanes.stay[lane];
      filled[index] = 0;
    }
  }

  /** A token is sampled for the last member. */
  private void sample(int lane) {
    int row = batch.logitCount++;
    rows[batch.sequences - 1] = row;
    batch.logitRows[row] = batch.tokenCount - 1;
    batch.sampling[row] = lanes.sampling(lane);
    lanes.row[lane] = row;
    lanes.rowStep[lane] = number;
    lanes.planned[lane]++;
  }

  /**
   * Fills the block tables, now that the longest is known, and lets go of who left. Where the
   * member of a row is the one of the last step in this place, only new blocks are written.
   */
  void seal() {
    // Prompts can be large: none is kept alive by a pooled step.
    SamplingState[] sampling = batch.sampling;
    Arrays.fill(sampling, batch.logitCount, Math.max(oldRows, batch.logitCount), null);
    oldRows = 0;
    // Nor does one that comes back to such a place find it as it was.
    Arrays.fill(rows, batch.sequences, Math.max(oldMembers, batch.sequences), -1);
    oldMembers = 0;
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
        System.arraycopy(
            lanes.sequence(members[i]).blocks,
            from,
            batch.blockTable,
            i * length + from,
            count - from);
        filled[i] = count;
      }
    }
  }
}
