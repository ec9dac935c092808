package dev.millrace.inference.backend.cuda;

import dev.millrace.inference.engine.Batch;
import dev.millrace.inference.sampling.SamplingState;
import java.util.Arrays;
import org.jspecify.annotations.Nullable;

/**
 * The sequences of decode steps one behind another, as {@link DecodeTables} says. It stays from
 * step to step: where the same sequence stands at an index again only its length is written, and
 * blocks that are new. Of one thread.
 */
final class SequenceList {
  /** Numbers of a sequence besides its blocks: its query's ends, its length. */
  static final int OWN = 3;

  /** Blocks that each sequence may grow by before all are moved. */
  static final int SPARE = 8;

  private int[] numbers = new int[0];

  /** [sequences] who stands there: nobody else draws by this. */
  private @Nullable SamplingState[] whose = new SamplingState[0];

  /** [sequences] where it begins, blocks that it has room for, and those that stand there. */
  private int[] begin = new int[0];

  private int[] room = new int[0];
  private int[] written = new int[0];

  /** Sequences that there are places for, and those of the last step. */
  private int placed;

  private int count;

  /** Numbers of a step with no room to spare. */
  static long least(Batch batch) {
    long numbers = 0;
    for (int s = 0; s < batch.sequences; s++) {
      numbers += OWN + blocks(batch, s);
    }
    return numbers;
  }

  /**
   * Lists a step's sequences, each of which has one query token.
   *
   * @param most numbers that there is room for, no fewer than {@link #least}
   */
  void list(Batch batch, int most) {
    if (!fits(batch, most)) {
      place(batch, most);
    }
    // Prompts can be large: none is kept alive longer than its row's next step.
    Arrays.fill(whose, batch.sequences, Math.max(batch.sequences, count), null);
    count = batch.sequences;
    for (int s = 0; s < count; s++) {
      int at = begin[s];
      numbers[at + 2] = batch.contextLength[s];
      SamplingState state = batch.sampling[s];
      if (whose[s] != state) {
        whose[s] = state;
        written[s] = 0;
      }
      int from = written[s];
      int to = blocks(batch, s);
      if (from < to) {
        System.arraycopy(
            batch.blockTable, s * batch.maxBlocks + from, numbers, at + OWN + from, to - from);
        written[s] = to;
      }
    }
  }

  private boolean fits(Batch batch, int most) {
    if (batch.sequences > placed || end(batch.sequences) > most) {
      return false;
    }
    for (int s = 0; s < batch.sequences; s++) {
      if (blocks(batch, s) > room[s]) {
        return false;
      }
    }
    return true;
  }

  /** Gives each sequence a place. */
  private void place(Batch batch, int most) {
    placed = batch.sequences;
    if (begin.length < placed) {
      whose = Arrays.copyOf(whose, placed);
      begin = new int[placed];
      room = new int[placed];
      written = new int[placed];
    }
    int spare = (int) Math.min(SPARE, (most - least(batch)) / placed);
    int used = 0;
    for (int s = 0; s < placed; s++) {
      begin[s] = used;
      room[s] = blocks(batch, s) + spare;
      written[s] = 0;
      used += OWN + room[s];
    }
    if (numbers.length < used) {
      numbers = new int[Math.min(most, 2 * used)];
    }
    for (int s = 0; s < placed; s++) {
      numbers[begin[s]] = s;
      numbers[begin[s] + 1] = s + 1;
    }
  }

  /** Where the places of so many sequences end. */
  private int end(int sequences) {
    return sequences == 0 ? 0 : begin[sequences - 1] + OWN + room[sequences - 1];
  }

  /** Where a sequence of the last step begins. */
  int begin(int sequence) {
    return begin[sequence];
  }

  /** Numbers of the last step. */
  int length() {
    return end(count);
  }

  int[] numbers() {
    return numbers;
  }

  private static int blocks(Batch batch, int sequence) {
    return Math.ceilDiv(batch.contextLength[sequence], CudaKvCache.BLOCK);
  }
}
