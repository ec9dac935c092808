package dev.millrace.inference.engine;

import dev.millrace.inference.sampling.SamplingState;
import java.util.Arrays;
import org.jspecify.annotations.Nullable;

/**
 * A {@link Batch} and who is in it. Pooled: filled by the scheduler, in flight from submission
 * until its result was awaited, then filled again.
 */
final class Step {
  final Batch batch;
  long number;
  @Nullable StepHandle handle;

  /** [batch.sequences] the members, their epochs, their scheduled tokens after this step. */
  private final @Nullable Sequence[] members;

  private final int[] epochs;
  private final int[] ends;

  /** [batch.sequences] logit row of the member, or -1. */
  private final int[] rows;

  private final int blockSize;
  private int mostBlocks;

  Step(int maxSequences, int maxTokens, int blockSize) {
    // Rows of block tables are as long as the longest of the step: filled and grown in seal().
    this.batch = new Batch(maxSequences, maxTokens, 1);
    this.members = new Sequence[maxSequences];
    this.epochs = new int[maxSequences];
    this.ends = new int[maxSequences];
    this.rows = new int[maxSequences];
    this.blockSize = blockSize;
  }

  /** Empties it; it becomes the {@code number}-th step. */
  void clear(long number) {
    this.number = number;
    this.handle = null;
    // Prompts can be large: none is kept alive by a pooled step.
    Arrays.fill(members, 0, batch.sequences, null);
    SamplingState[] sampling = batch.sampling;
    Arrays.fill(sampling, 0, batch.logitCount, null);
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
    sequence.copyTokens(from, known, batch.tokens, first);
    Arrays.fill(batch.tokenFrom, first, first + known - from, -1);
    if (known < to) {
      // Only the step before this one can still be in flight, so only one token is not known.
      if (to - known > 1 || sequence.rowStep != number - 1) {
        throw new IllegalStateException(sequence + " needs tokens that no step supplies");
      }
      batch.tokens[first + count - 1] = 0;
      batch.tokenFrom[first + count - 1] = sequence.row;
    }
    for (int i = 0; i < count; i++) {
      int position = from + i;
      batch.positions[first + i] = position;
      batch.slots[first + i] =
          sequence.blocks[position / blockSize] * blockSize + position % blockSize;
    }
    batch.queryStart[index] = first;
    batch.tokenCount = first + count;
    batch.queryStart[index + 1] = batch.tokenCount;
    batch.contextLength[index] = to;
    mostBlocks = Math.max(mostBlocks, Math.ceilDiv(to, blockSize));

    rows[index] = -1;
    if (to == sequence.planned()) {
      int row = batch.logitCount++;
      rows[index] = row;
      batch.logitRows[row] = batch.tokenCount - 1;
      batch.sampling[row] = sequence.sampling();
      sequence.row = row;
      sequence.rowStep = number;
      sequence.pending++;
    }
    sequence.scheduled = to;
    members[index] = sequence;
    epochs[index] = sequence.epoch;
    ends[index] = to;
  }

  /** Fills the block tables, now that the longest is known. */
  void seal() {
    batch.maxBlocks = mostBlocks;
    int size = Math.multiplyExact(batch.sequences, mostBlocks);
    if (batch.blockTable.length < size) {
      batch.blockTable = new int[Math.max(size, (int) Math.min(1 << 30, size * 3L / 2))];
    }
    for (int i = 0; i < batch.sequences; i++) {
      int used = Math.ceilDiv(ends[i], blockSize);
      System.arraycopy(member(i).blocks, 0, batch.blockTable, i * mostBlocks, used);
    }
  }
}
