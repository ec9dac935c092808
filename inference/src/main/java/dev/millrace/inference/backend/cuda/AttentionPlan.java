package dev.millrace.inference.backend.cuda;

import dev.millrace.inference.engine.Batch;
import dev.millrace.kernels.AttentionKernels;
import java.util.Arrays;

/**
 * How a step's attention is shared out over a GPU: prefill tiles for sequences with several query
 * tokens, and items, stretches of context, for those with one. It depends on how many heads share a
 * KV head, so layers of one kind share a plan.
 *
 * <p>Where results are to be invariant every token goes to a tile: its row there comes to the same
 * bits whatever the tile's other rows are, while items depend on who else is in the step.
 */
final class AttentionPlan {
  /** Shortest stretch of context and what lengths are multiples of. */
  static final int STRETCH = 64;

  /** So that a stretch is an int. */
  private static final int LONGEST = Integer.MAX_VALUE / STRETCH * STRETCH;

  /** Into how many stretches the longest sequence may be cut. */
  private static final int[] CUTS = {
    2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512
  };

  /** What a token of an item that runs alone takes of one that runs in a wave. */
  private static final double ALONE = 0.25;

  /** Tokens in whose time an item begins and ends, and in whose time items are put together. */
  private static final int ITEM = 120;

  private static final int MERGE = 125;

  /** Cut if it takes less than this share. */
  private static final double WORTH = 0.95;

  private final boolean invariant;

  /** [tiles] the sequence, and the index of its first token in the sequence's query. */
  final Ints tileSequence = new Ints();

  final Ints tileToken = new Ints();

  /** [items] the sequence, the positions [from, to). */
  final Ints itemSequence = new Ints();

  final Ints itemFrom = new Ints();
  final Ints itemTo = new Ints();

  /** [merges] sequences of more than one item, the first item, how many. */
  final Ints mergeSequence = new Ints();

  final Ints mergeFirst = new Ints();
  final Ints mergeItems = new Ints();

  /**
   * @param invariant whether a token's result may depend on its own sequence alone
   */
  AttentionPlan(boolean invariant) {
    this.invariant = invariant;
  }

  /** A growing array. */
  static final class Ints {
    int[] values = new int[64];
    int count;

    void add(int value) {
      if (count == values.length) {
        values = Arrays.copyOf(values, count * 2);
      }
      values[count++] = value;
    }

    int get(int index) {
      return values[java.util.Objects.checkIndex(index, count)];
    }
  }

  /**
   * Plans a step.
   *
   * @param group query heads that share a KV head
   * @param atOnce blocks of a decode that the device runs at once
   */
  void plan(Batch batch, int group, int kvHeads, int atOnce) {
    for (Ints ints :
        new Ints[] {
          tileSequence,
          tileToken,
          itemSequence,
          itemFrom,
          itemTo,
          mergeSequence,
          mergeFirst,
          mergeItems
        }) {
      ints.count = 0;
    }
    int tileTokens = AttentionKernels.TILE_ROWS / group;
    int stretch = invariant ? 0 : stretch(batch, wave(group, kvHeads, atOnce));
    for (int s = 0; s < batch.sequences; s++) {
      int queries = queries(batch, s);
      if (queries == 1 && !invariant) {
        items(s, batch.contextLength[s], stretch);
      } else {
        // The last sees most of the context and takes longest: it begins first.
        for (int token = (queries - 1) / tileTokens * tileTokens; token >= 0; token -= tileTokens) {
          tileSequence.add(s);
          tileToken.add(token);
        }
      }
    }
  }

  /**
   * The stretch with which a decode ends soonest, of all that leave room for its items.
   *
   * <p>By what was measured on an H200 (FP8, eight KV heads), in tokens of an item that runs as one
   * of a full wave: the cache is read as fast as it can be as long as a quarter of a wave runs, so
   * that one item alone goes four times as fast; each item takes a while to begin and to end, and
   * putting items together takes a kernel more. So whole sequences are best but where they are few,
   * or long and a little more than a wave.
   */
  private static int stretch(Batch batch, int wave) {
    long tokens = 0;
    int longest = 0;
    int decodes = 0;
    for (int s = 0; s < batch.sequences; s++) {
      if (queries(batch, s) == 1) {
        tokens += batch.contextLength[s];
        longest = Math.max(longest, batch.contextLength[s]);
        decodes++;
      }
    }
    int best = aligned(longest);
    double reading = (double) tokens / wave;
    if (end(reading, longest, decodes, wave) <= MERGE) {
      return best; // nothing else is saved
    }
    double least = WORTH * takes(reading, longest, decodes, wave);
    int most = decodes + mostCuts(decodes, wave);
    for (int cuts : CUTS) {
      int stretch = aligned(Math.ceilDiv(longest, cuts));
      int items = items(batch, stretch);
      if (items > most) {
        break;
      }
      double takes = MERGE + takes(reading, stretch, items, wave);
      if (takes < least) {
        least = takes;
        best = stretch;
      }
    }
    return best;
  }

  private static double takes(double reading, int longest, int items, int wave) {
    return reading + end(reading, longest, items, wave) + (double) items / wave * ITEM;
  }

  /** From when there are too few items left for reading to be as fast as it can be. */
  private static double end(double reading, int longest, int items, int wave) {
    double alone = longest * ALONE;
    return Math.max(alone - reading, items <= wave ? 0 : alone / (items / wave));
  }

  private static int aligned(int tokens) {
    return Math.max(1, Math.ceilDiv(Math.min(tokens, LONGEST), STRETCH)) * STRETCH;
  }

  private static int queries(Batch batch, int sequence) {
    return batch.queryStart[sequence + 1] - batch.queryStart[sequence];
  }

  private static int items(Batch batch, int stretch) {
    int items = 0;
    for (int s = 0; s < batch.sequences; s++) {
      if (queries(batch, s) == 1) {
        items += Math.ceilDiv(batch.contextLength[s], stretch);
      }
    }
    return items;
  }

  /** Items that run at once. */
  private static int wave(int group, int kvHeads, int atOnce) {
    int blocks = kvHeads * Math.ceilDiv(group, AttentionKernels.MANY_HEADS);
    return Math.max(1, Math.ceilDiv(atOnce, blocks));
  }

  /**
   * How many more items than sequences a step has at most where each has one query token. So many
   * sequences at most have several items.
   */
  static int mostCuts(int sequences, int group, int kvHeads, int atOnce) {
    return mostCuts(sequences, wave(group, kvHeads, atOnce));
  }

  /**
   * At least a wave, with which one sequence fills the GPU; otherwise what cuts each sequence into
   * four, but no more than four waves.
   */
  private static int mostCuts(int sequences, int wave) {
    return Math.max(wave, (int) Math.min(3L * sequences, 4L * wave));
  }

  private void items(int sequence, int context, int stretch) {
    if (context <= stretch) {
      add(sequence, 0, context);
      return;
    }
    int count = Math.ceilDiv(context, stretch);
    // All about as long: the longest decides when the sequence is done.
    int length = Math.ceilDiv(Math.ceilDiv(context, count), STRETCH) * STRETCH;
    int first = itemSequence.count;
    for (int from = 0; from < context; from += length) {
      add(sequence, from, Math.min(context, from + length));
    }
    int items = itemSequence.count - first;
    if (items > 1) {
      mergeSequence.add(sequence);
      mergeFirst.add(first);
      mergeItems.add(items);
    }
  }

  private void add(int sequence, int from, int to) {
    itemSequence.add(sequence);
    itemFrom.add(from);
    itemTo.add(to);
  }

  /** Most items of a step of so many sequences, on any model. */
  static int mostItems(int sequences, int multiprocessors) {
    return sequences + mostCuts(sequences, AttentionKernels.MOST_DECODE_BLOCKS * multiprocessors);
  }
}
