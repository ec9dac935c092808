package dev.millrace.inference.engine;

import dev.millrace.inference.api.Generator;
import java.util.Arrays;
import java.util.Collection;
import org.jspecify.annotations.Nullable;

/**
 * The sequences that run, in the order of their admission, and their lanes. One that leaves makes a
 * gap until {@link #closeGaps}. Plain bookkeeping, of the engine thread.
 */
final class RunningSequences {
  private final @Nullable Sequence[] sequences;
  private final int[] lanes;
  private int end;
  private int count;
  private boolean gaps;

  RunningSequences(int most) {
    this.sequences = new Sequence[most];
    this.lanes = new int[most];
  }

  /** How many run. */
  int count() {
    return count;
  }

  /** Where the last one stands, plus 1. */
  int end() {
    return end;
  }

  /** [end] the sequences; null in gaps. */
  @Nullable Sequence[] sequences() {
    return sequences;
  }

  /** [end] their lanes; of no meaning in gaps. */
  int[] lanes() {
    return lanes;
  }

  /** The one that stands there, which is no gap. */
  Sequence get(int index) {
    Sequence sequence = sequences[index];
    if (sequence == null) {
      throw new IllegalStateException("nothing runs at " + index);
    }
    return sequence;
  }

  /** Behind all others; it has its lane. */
  void add(Sequence sequence) {
    sequence.runningIndex = end;
    lanes[end] = sequence.lane;
    sequences[end++] = sequence;
    count++;
  }

  void remove(Sequence sequence) {
    sequences[sequence.runningIndex] = null;
    gaps = true;
    count--;
  }

  void closeGaps() {
    if (!gaps) {
      return;
    }
    gaps = false;
    int kept = 0;
    for (int i = 0; i < end; i++) {
      Sequence sequence = sequences[i];
      if (sequence != null) {
        sequence.runningIndex = kept;
        lanes[kept] = sequence.lane;
        sequences[kept++] = sequence;
      }
    }
    Arrays.fill(sequences, kept, end, null);
    end = kept;
  }

  /** Those that wait to be allowed more tokens; null if none does. */
  Generator.@Nullable Held held(Lanes of) {
    int held = 0;
    long since = 0;
    for (int i = 0; i < end; i++) {
      Sequence sequence = of.mayBeHeld(lanes[i]) ? sequences[i] : null;
      if (sequence != null && sequence.held()) {
        long began = sequence.heldNanos();
        since = held == 0 || began - since < 0 ? began : since;
        held++;
      }
    }
    return held == 0 ? null : new Generator.Held(held, since);
  }

  void addTo(Collection<Sequence> all) {
    for (int i = 0; i < end; i++) {
      Sequence sequence = sequences[i];
      if (sequence != null) {
        all.add(sequence);
      }
    }
  }

  void clear() {
    Arrays.fill(sequences, null);
    gaps = false;
    end = 0;
    count = 0;
  }
}
