package dev.millrace.inference.backend.cuda;

import dev.millrace.inference.engine.Batch;
import dev.millrace.kernels.AttentionKernels;
import dev.millrace.kernels.BeginKernels;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * Where a decode graph finds what changes from step to step: arrays of ints at fixed places, with
 * room for so many rows, items and blocks. What a step does not need of them stands for nothing:
 * rows without a slot, items without positions, merges without items, tiles without a token.
 *
 * <p>Rows of one length would make every block table as long as the longest sequence ever. So the
 * sequences stand one behind another, each with its first query token and the one after its last,
 * its length and its blocks, and a sequence goes by where it begins: to kernels that is its index
 * in {@code queryStart}, in {@code contextLength}, which begins two numbers later, and in a block
 * table whose rows are one number apart. What is sent is as long as the sequences of the step, and
 * stays where it is from step to step: each has some room for blocks to come.
 */
final class DecodeTables {
  /** Numbers of a sequence besides its blocks. */
  private static final int OWN = SequenceList.OWN;

  /** Numbers of an array's beginning are multiples of this: 16 bytes. */
  private static final int ALIGNMENT = 4;

  private final long address;
  private final int rows;
  private final int room;
  private final List<Plan> plans;
  private final int tokens;
  private final int tokenFrom;
  private final int positions;
  private final int slots;
  private final int logitRows;
  private final int begins;
  private final int sequences;
  private final CudaStep.Arrays arrays;
  private final Sheet sheet;
  private int end;

  /** Where a step's numbers are put together: one for all tables that a thread sends from. */
  static final class Sheet {
    /** All but the sequences. */
    private int[] numbers = new int[0];

    private final SequenceList sequences = new SequenceList();
  }

  /**
   * Most work of layers that have so many KV heads.
   *
   * @param merges 0: no sequence has more than one item
   * @param tiles of one query token each; there are those, or items
   */
  record Room(int kvHeads, int items, int merges, int tiles) {}

  /** Where a plan's arrays begin. */
  private record Plan(
      Room room,
      int itemSequence,
      int itemFrom,
      int itemTo,
      int mergeSequence,
      int mergeFirst,
      int mergeItems,
      int tileSequence,
      int tileToken) {}

  /**
   * @param address on the device
   * @param room for so many numbers of sequences
   * @param work for each number of KV heads, in order
   */
  DecodeTables(long address, int rows, int room, List<Room> work, Sheet sheet) {
    this.sheet = sheet;
    this.address = address;
    this.rows = rows;
    this.room = room;
    this.tokens = take(rows);
    this.tokenFrom = take(rows);
    this.positions = take(rows);
    this.slots = take(rows);
    this.logitRows = take(rows);
    this.begins = take(rows);
    this.plans = new ArrayList<>();
    for (Room most : work) {
      plans.add(
          new Plan(
              most,
              take(most.items),
              take(most.items),
              take(most.items),
              take(most.merges),
              take(most.merges),
              take(most.merges),
              take(most.tiles),
              take(most.tiles)));
    }
    this.sequences = end;
    this.arrays = made();
  }

  private int take(int count) {
    int at = end;
    end = Math.ceilDiv(end + count, ALIGNMENT) * ALIGNMENT;
    return at;
  }

  /** Rows of a step, those to spare too. */
  int rows() {
    return rows;
  }

  /** Bytes of all arrays. */
  long bytes() {
    return bytes(sequences + (long) room);
  }

  /** Of so many numbers, which are moved 16 bytes at a time. */
  private static long bytes(long numbers) {
    return Math.ceilDiv(numbers, ALIGNMENT) * ALIGNMENT * (long) Integer.BYTES;
  }

  /** Numbers of so many sequences of a model, together of no more than {@code mostBlocks}. */
  static int room(int sequences, int maxContext, long mostBlocks) {
    long blocks = (long) sequences * Math.ceilDiv(maxContext, CudaKvCache.BLOCK);
    long each = OWN + SequenceList.SPARE;
    return Math.toIntExact(sequences * each + Math.min(blocks, mostBlocks));
  }

  /** The arrays as a step has them. */
  CudaStep.Arrays arrays() {
    return arrays;
  }

  private CudaStep.Arrays made() {
    Map<Integer, CudaStep.Attention> attention = new LinkedHashMap<>();
    for (Plan plan : plans) {
      attention.put(
          plan.room.kvHeads,
          new CudaStep.Attention(
              new AttentionKernels.Tiles(
                  at(plan.tileSequence), at(plan.tileToken), plan.room.tiles),
              null,
              new AttentionKernels.Items(
                  at(plan.itemSequence), at(plan.itemFrom), at(plan.itemTo), plan.room.items),
              new AttentionKernels.Merges(
                  at(plan.mergeSequence),
                  at(plan.mergeFirst),
                  at(plan.mergeItems),
                  plan.room.merges)));
    }
    return new CudaStep.Arrays(
        at(tokens),
        at(tokenFrom),
        at(positions),
        at(slots),
        at(logitRows),
        at(begins),
        new AttentionKernels.Sequences(at(sequences), at(sequences + 2), at(sequences + OWN), 1),
        attention);
  }

  private long at(int offset) {
    return address + (long) offset * Integer.BYTES;
  }

  /**
   * Whether a step has room here.
   *
   * @param made a plan for each number of KV heads, in order
   */
  boolean fit(Batch batch, List<AttentionPlan> made) {
    for (int i = 0; i < made.size(); i++) {
      Room room = plans.get(i).room;
      if (made.get(i).itemSequence.count > room.items
          || made.get(i).mergeSequence.count > room.merges
          || made.get(i).tileSequence.count > room.tiles) {
        return false;
      }
    }
    return SequenceList.least(batch) <= room;
  }

  /**
   * Writes a step of one query token for each sequence that has room here to where a kernel brings
   * it from.
   */
  BeginKernels.Tables write(Batch batch, List<AttentionPlan> made, StepBuffer buffer) {
    int count = batch.sequences;
    sheet.sequences.list(batch, room);
    if (sheet.numbers.length < sequences) {
      sheet.numbers = new int[sequences];
    }
    one(batch.tokens, count, tokens, 0);
    one(batch.tokenFrom, count, tokenFrom, -1);
    one(batch.positions, count, positions, 0);
    one(batch.slots, count, slots, -1);
    one(batch.logitRows, count, logitRows, 0);
    for (int s = 0; s < rows; s++) {
      sheet.numbers[begins + s] = sheet.sequences.begin(s < count ? s : 0);
    }
    for (int i = 0; i < made.size(); i++) {
      write(plans.get(i), made.get(i));
    }
    int used = sheet.sequences.length();
    long bytes = bytes(sequences + (long) used);
    StepBuffer.Region region = buffer.reserve(bytes);
    MemorySegment host = region.host();
    MemorySegment.copy(sheet.numbers, 0, host, ValueLayout.JAVA_INT, 0, sequences);
    long behind = (long) sequences * Integer.BYTES;
    MemorySegment.copy(sheet.sequences.numbers(), 0, host, ValueLayout.JAVA_INT, behind, used);
    return new BeginKernels.Tables(region.lend(), address, bytes);
  }

  /** A number for each sequence, and for rows without one. */
  private void one(int[] values, int sequences, int at, int otherwise) {
    System.arraycopy(values, 0, sheet.numbers, at, sequences);
    Arrays.fill(sheet.numbers, at + sequences, at + rows, otherwise);
  }

  private void write(Plan plan, AttentionPlan made) {
    begins(made.itemSequence, plan.itemSequence, plan.room.items);
    fill(made.itemFrom, plan.itemFrom, plan.room.items, 0);
    fill(made.itemTo, plan.itemTo, plan.room.items, 0);
    begins(made.mergeSequence, plan.mergeSequence, plan.room.merges);
    fill(made.mergeFirst, plan.mergeFirst, plan.room.merges, 0);
    fill(made.mergeItems, plan.mergeItems, plan.room.merges, 0);
    begins(made.tileSequence, plan.tileSequence, plan.room.tiles);
    fill(made.tileToken, plan.tileToken, plan.room.tiles, -1);
  }

  /** Where these sequences begin, and the first one where there is none. */
  private void begins(AttentionPlan.Ints whose, int at, int all) {
    SequenceList list = sheet.sequences;
    for (int i = 0; i < whose.count; i++) {
      sheet.numbers[at + i] = list.begin(whose.values[i]);
    }
    Arrays.fill(sheet.numbers, at + whose.count, at + all, list.begin(0));
  }

  /** Numbers of a plan, and of what stands for nothing. */
  private void fill(AttentionPlan.Ints ints, int at, int all, int otherwise) {
    System.arraycopy(ints.values, 0, sheet.numbers, at, ints.count);
    Arrays.fill(sheet.numbers, at + ints.count, at + all, otherwise);
  }
}
