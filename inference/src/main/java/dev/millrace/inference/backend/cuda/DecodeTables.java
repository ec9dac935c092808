package dev.millrace.inference.backend.cuda;

import dev.millrace.inference.engine.Batch;
import dev.millrace.kernels.AttentionKernels;
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
 * <p>Long rows of the block table would make every step's as long as the longest sequence ever. So
 * a sequence has as many short rows as it needs, and goes by the number of its first one: that is
 * its index in {@code queryStart} and {@code contextLength} too.
 */
final class DecodeTables {
  /** Blocks of a row of the block table. */
  static final int ROW_BLOCKS = 64;

  /** Numbers of an array's beginning are multiples of this: 16 bytes. */
  private static final int ALIGNMENT = 4;

  private final long address;
  private final int rows;
  private final int tableRows;
  private final List<Plan> plans;
  private final int tokens;
  private final int tokenFrom;
  private final int positions;
  private final int slots;
  private final int logitRows;
  private final int queryStart;
  private final int contextLength;
  private final int table;
  private final CudaStep.Arrays arrays;
  private int[] numbers = new int[0];
  private int[] firstRow = new int[0];
  private int end;

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
   * @param tableRows rows that there are at most of {@link #ROW_BLOCKS} blocks
   */
  DecodeTables(long address, int rows, int tableRows, List<Room> rooms) {
    this.address = address;
    this.rows = rows;
    this.tableRows = tableRows;
    this.tokens = take(rows);
    this.tokenFrom = take(rows);
    this.positions = take(rows);
    this.slots = take(rows);
    this.logitRows = take(rows);
    this.plans = new ArrayList<>();
    for (Room room : rooms) {
      plans.add(
          new Plan(
              room,
              take(room.items),
              take(room.items),
              take(room.items),
              take(room.merges),
              take(room.merges),
              take(room.merges),
              take(room.tiles),
              take(room.tiles)));
    }
    this.queryStart = take(tableRows + 1);
    this.contextLength = take(tableRows);
    this.table = end;
    this.arrays = made();
  }

  private int take(int count) {
    int at = end;
    end = Math.ceilDiv(end + count, ALIGNMENT) * ALIGNMENT;
    return at;
  }

  /** Bytes of all arrays. */
  long bytes() {
    return (table + (long) tableRows * ROW_BLOCKS) * Integer.BYTES;
  }

  /** Most rows of the block table that so many sequences of a model need. */
  static int tableRows(int sequences, int maxContext, int mostRows) {
    int each = Math.ceilDiv(Math.ceilDiv(maxContext, CudaKvCache.BLOCK), ROW_BLOCKS);
    return (int) Math.min((long) sequences * each, (long) sequences + mostRows);
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
        new AttentionKernels.Sequences(at(queryStart), at(contextLength), at(table), ROW_BLOCKS),
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
    long used = 0;
    for (int s = 0; s < batch.sequences; s++) {
      used += Math.ceilDiv(blocks(batch, s), ROW_BLOCKS);
    }
    return used <= tableRows;
  }

  /** Sends a step of one query token for each sequence that has room here. */
  void send(Batch batch, List<AttentionPlan> made, StepBuffer buffer) {
    int sequences = batch.sequences;
    if (firstRow.length == 0) {
      firstRow = new int[rows];
      numbers = new int[table];
    }
    int used = 0;
    for (int s = 0; s < sequences; s++) {
      firstRow[s] = used;
      used += Math.ceilDiv(blocks(batch, s), ROW_BLOCKS);
    }
    one(batch.tokens, sequences, tokens, 0);
    one(batch.tokenFrom, sequences, tokenFrom, -1);
    one(batch.positions, sequences, positions, 0);
    one(batch.slots, sequences, slots, -1);
    one(batch.logitRows, sequences, logitRows, 0);
    for (int i = 0; i < made.size(); i++) {
      write(plans.get(i), made.get(i));
    }
    for (int s = 0; s < sequences; s++) {
      numbers[queryStart + firstRow[s]] = s;
      numbers[queryStart + firstRow[s] + 1] = s + 1; // where its query ends, and the next begins
      numbers[contextLength + firstRow[s]] = batch.contextLength[s];
    }
    long all = (table + (long) used * ROW_BLOCKS) * Integer.BYTES;
    StepBuffer.Region region = buffer.reserve(all);
    MemorySegment host = region.host();
    MemorySegment.copy(numbers, 0, host, ValueLayout.JAVA_INT, 0, table);
    for (int s = 0; s < sequences; s++) {
      MemorySegment.copy(
          batch.blockTable,
          s * batch.maxBlocks,
          host,
          ValueLayout.JAVA_INT,
          (table + (long) firstRow[s] * ROW_BLOCKS) * Integer.BYTES,
          blocks(batch, s));
    }
    region.sendTo(address);
  }

  private static int blocks(Batch batch, int sequence) {
    return Math.ceilDiv(batch.contextLength[sequence], CudaKvCache.BLOCK);
  }

  /** A number for each sequence, and for rows without one. */
  private void one(int[] values, int sequences, int at, int otherwise) {
    System.arraycopy(values, 0, numbers, at, sequences);
    Arrays.fill(numbers, at + sequences, at + rows, otherwise);
  }

  private void write(Plan plan, AttentionPlan made) {
    firstRows(made.itemSequence, plan.itemSequence, plan.room.items);
    fill(made.itemFrom, plan.itemFrom, plan.room.items, 0);
    fill(made.itemTo, plan.itemTo, plan.room.items, 0);
    firstRows(made.mergeSequence, plan.mergeSequence, plan.room.merges);
    fill(made.mergeFirst, plan.mergeFirst, plan.room.merges, 0);
    fill(made.mergeItems, plan.mergeItems, plan.room.merges, 0);
    firstRows(made.tileSequence, plan.tileSequence, plan.room.tiles);
    fill(made.tileToken, plan.tileToken, plan.room.tiles, -1);
  }

  /** Where the tables of these sequences begin, and of the first one where there is none. */
  private void firstRows(AttentionPlan.Ints sequences, int at, int room) {
    for (int i = 0; i < sequences.count; i++) {
      numbers[at + i] = firstRow[sequences.get(i)];
    }
    Arrays.fill(numbers, at + sequences.count, at + room, firstRow[0]);
  }

  /** Numbers of a plan, and of what stands for nothing. */
  private void fill(AttentionPlan.Ints ints, int at, int room, int otherwise) {
    System.arraycopy(ints.values, 0, numbers, at, ints.count);
    Arrays.fill(numbers, at + ints.count, at + room, otherwise);
  }
}
