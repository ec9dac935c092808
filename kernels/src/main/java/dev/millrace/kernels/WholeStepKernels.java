package dev.millrace.kernels;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * Launcher of {@code whole_step.cu}: all layers and the logits of a decode step of few rows as one
 * kernel, which has a block on each multiprocessor. Loaded into the current context by whoever
 * closes it. Chips that have no copies in bulk have no such kernels: {@link #takes} says no.
 */
public final class WholeStepKernels implements AutoCloseable {
  /** Most rows of a step. */
  public static final int MOST_ROWS = 8;

  /** The first chips that have copies in bulk. */
  public static final int CAPABILITY = 90;

  // As in step.cuh.
  private static final int CREW_WARPS = 8;
  private static final int THREADS = (CREW_WARPS + 2 + 2) * 32;
  private static final int UNIT = 16;
  private static final int CHUNK = 2048;
  private static final int STRETCH = 64;
  private static final int SLOT = UNIT * CHUNK + STRETCH;
  private static final int SUM_BUFFERS = 3;
  private static final int MOST_HELD = 8;
  private static final int MOST_SLOTS = 8;

  // Of what whole_step.cu lays out first: in any step, and for each row; then comes a 16-byte
  // place.
  private static final int FIXED_BYTES = 448;
  private static final int ROW_BYTES = 5 * Integer.BYTES + UNIT * Float.BYTES;
  private static final int PART = 16;
  private static final int LAYER_BYTES = 144;
  private static final int STEP_BYTES = 184;
  private static final int MOST_GROUP = 8;

  /** Fewer do not hold what is on its way and what is multiplied. */
  private static final int LEAST_SLOTS = 3;

  /** What rows of inputs may take of the memory that the queue of weights needs. */
  private static final int INPUT_BYTES = 68 << 10;

  /** Arrays of the device's memory begin at multiples of this. */
  private static final int ALIGNMENT = 256;

  private static final ValueLayout.OfLong LONG = ValueLayout.JAVA_LONG;
  private static final ValueLayout.OfInt INT = ValueLayout.JAVA_INT;
  private static final ValueLayout.OfFloat FLOAT = ValueLayout.JAVA_FLOAT;

  private final KernelModule module = KernelModule.load("whole_step");
  private final Map<String, KernelModule.Kernel> kernels = new HashMap<>();
  private final int multiprocessors;
  private final int sharedBytes;
  private final MemorySegment step = Arena.ofAuto().allocate(STEP_BYTES, Long.BYTES);

  /**
   * What a network is, all of whose layers are alike.
   *
   * @param fp8Weights e4m3 instead of bfloat16; the output matrix is bfloat16
   * @param fp8Cache keys and values of e4m3 instead of bfloat16
   */
  public record Network(
      int layers,
      int hidden,
      int inner,
      Heads heads,
      int vocab,
      float epsilon,
      boolean fp8Weights,
      boolean fp8Cache) {}

  /** Heads of its attention. */
  public record Heads(int queries, int kv, int dim) {
    int group() {
      return queries / kv;
    }
  }

  /**
   * A matrix [outputs][inputs], contiguous.
   *
   * @param scale of e4m3: what its numbers are multiplied by
   * @param input of e4m3: what its input is divided by; 0: each row by its own
   */
  public record Matrix(long address, float scale, float input) {}

  /**
   * A layer. Norms are float; q, k and v have one input, and so have gate and up.
   *
   * @param cache its keys and values, with the network's heads
   */
  public record Layer(
      long attentionNorm,
      Matrix q,
      Matrix k,
      Matrix v,
      Matrix o,
      long feedNorm,
      Matrix gate,
      Matrix up,
      Matrix down,
      AttentionKernels.Layer cache) {}

  /**
   * What changes from step to step. Arrays of the device, by row.
   *
   * @param cos float [rows][headDim / 2]
   * @param sin likewise
   * @param slots where a row's key and value go; -1: it is no token
   * @param begin the row's index in the lengths of {@code sequences}, and times its row length in
   *     the block table
   * @param state bfloat16 [rows][hidden]: the embedded tokens; overwritten
   * @param logits float [rows][vocab]
   */
  public record Inputs(
      int rows,
      long cos,
      long sin,
      long slots,
      long begin,
      AttentionKernels.Sequences sequences,
      long state,
      long logits) {}

  /** Where things are in the memory of {@link #bytes}. */
  private record Room(
      long queries, long attended, long gated, long partial, long largest, long counts, long end) {
    static Room of(Network n, int multiprocessors) {
      Heads heads = n.heads;
      long queries = aligned((long) n.layers * LAYER_BYTES);
      long rowBytes = (long) heads.queries * heads.dim * Short.BYTES;
      long attended = queries + aligned(MOST_ROWS * rowBytes);
      long gated = attended + aligned(MOST_ROWS * rowBytes);
      long partial = gated + aligned((long) MOST_ROWS * n.inner * Short.BYTES);
      long pieces = multiprocessors + (long) MOST_ROWS * heads.kv;
      long largest =
          partial + aligned(pieces * heads.group() * (heads.dim + 1) * (long) Float.BYTES);
      long counts = largest + aligned(2 * 2 * MOST_ROWS * Float.BYTES);
      long end = counts + aligned((2 + (long) MOST_ROWS * heads.kv) * Integer.BYTES);
      return new Room(queries, attended, gated, partial, largest, counts, end);
    }

    private static long aligned(long bytes) {
      return Math.ceilDiv(bytes, ALIGNMENT) * ALIGNMENT;
    }
  }

  /**
   * How a block uses its shared memory.
   *
   * @param stride bytes from a row of inputs to the next
   * @param slots of the queue
   * @param bytes in all
   */
  record Shared(int stride, int slots, int bytes) {}

  /**
   * Loads the kernels.
   *
   * @param multiprocessors of the GPU
   * @param sharedBytes of shared memory that a block may have
   */
  public WholeStepKernels(int multiprocessors, int sharedBytes) {
    this.multiprocessors = multiprocessors;
    this.sharedBytes = sharedBytes;
  }

  /** Whether there is a kernel for steps of so many rows of a network, and it can run here. */
  public boolean takes(Network n, int rows) {
    Heads heads = n.heads;
    if (rows > MOST_ROWS
        || heads.queries % heads.kv != 0
        || heads.group() > MOST_GROUP
        || n.hidden % UNIT != 0
        || n.inner % UNIT != 0) {
      return false;
    }
    KernelModule.Kernel kernel = kernel(n);
    Shared shared = shared(n, rows, multiprocessors, sharedBytes);
    return kernel != null && shared != null && kernel.blocksAtOnce(THREADS, shared.bytes) > 0;
  }

  private KernelModule.@Nullable Kernel kernel(Network n) {
    String name =
        "whole_step_%s_%s_%d"
            .formatted(n.fp8Weights ? "fp8" : "bf16", n.fp8Cache ? "fp8" : "bf16", n.heads.dim);
    KernelModule.Kernel kernel = kernels.get(name);
    if (kernel == null) {
      kernel = module.findTogether(name);
      if (kernel != null) {
        kernels.put(name, kernel);
      }
    }
    return kernel;
  }

  /** Null where there is too little of it. */
  static @Nullable Shared shared(Network n, int rows, int multiprocessors, int sharedBytes) {
    Heads heads = n.heads;
    int widest = Math.max(Math.max(n.hidden, n.inner), heads.queries * heads.dim);
    int whole = 2 * widest + STRETCH;
    int stride = whole;
    if (rows * whole > INPUT_BYTES) {
      // A segment is whole chunks of either format; norms make rows of the hidden state as a whole.
      int segment = Math.max(1, (INPUT_BYTES / rows - STRETCH) / (2 * CHUNK)) * 2 * CHUNK;
      stride = Math.min(whole, Math.max(segment, 2 * n.hidden) + STRETCH);
      if (stride < whole && Math.ceilDiv(n.hidden / UNIT, multiprocessors) > MOST_HELD) {
        return null;
      }
    }
    int shares = CREW_WARPS * heads.group() * (heads.dim + 2) * Float.BYTES;
    int sums = rows == 1 ? UNIT : UNIT + 4;
    int rest =
        Math.ceilDiv(FIXED_BYTES + rows * ROW_BYTES, PART) * PART
            + n.layers * LAYER_BYTES
            + SUM_BUFFERS * CREW_WARPS * rows * sums * Float.BYTES
            + (stride < whole ? MOST_HELD * UNIT * rows * Float.BYTES : 0)
            + Math.max(rows * stride, shares);
    int norm = n.hidden * Float.BYTES;
    // Behind the first row of inputs, where there is room.
    rest += 2 * n.hidden + STRETCH + norm <= stride ? 0 : norm;
    rest = Math.ceilDiv(rest, STRETCH) * STRETCH;
    int slots = Math.min(MOST_SLOTS, (sharedBytes - rest) / SLOT);
    return slots < LEAST_SLOTS ? null : new Shared(stride, slots, rest + slots * SLOT);
  }

  /** Bytes of the device's memory that a network's steps work in; zeros before the first. */
  public long bytes(Network n) {
    return Room.of(n, multiprocessors).end;
  }

  /** What belongs at the beginning of that memory. */
  public static MemorySegment table(List<Layer> layers, Arena arena) {
    MemorySegment table = arena.allocate((long) layers.size() * LAYER_BYTES, Long.BYTES);
    for (int i = 0; i < layers.size(); i++) {
      Layer l = layers.get(i);
      Writer to = new Writer(table.asSlice((long) i * LAYER_BYTES, LAYER_BYTES));
      for (Matrix m : List.of(l.q, l.k, l.v, l.o, l.gate, l.up, l.down)) {
        to.put(m.address);
      }
      to.put(l.attentionNorm).put(l.feedNorm).put(l.cache.keys()).put(l.cache.values());
      for (Matrix m : List.of(l.q, l.k, l.v, l.o, l.gate, l.up, l.down)) {
        to.put(m.scale);
      }
      to.put(l.q.input).put(l.o.input).put(l.gate.input).put(l.down.input);
      AttentionKernels.Scales scales = l.cache.fp8();
      to.put(scales == null ? 1 : scales.keys()).put(scales == null ? 1 : scales.values());
    }
    return table;
  }

  /**
   * Runs all layers and the logits.
   *
   * @param memory as {@link #bytes} and {@link #table} say
   * @param norm float [hidden], before the output matrix
   * @param output bfloat16 [vocab][hidden], contiguous
   */
  public void launch(Network n, long memory, long norm, long output, Inputs inputs, Stream stream) {
    KernelModule.Kernel kernel = kernel(n);
    Shared shared = shared(n, inputs.rows, multiprocessors, sharedBytes);
    if (kernel == null || shared == null) {
      throw new IllegalArgumentException("there is no kernel for " + inputs.rows + " rows of " + n);
    }
    Room room = Room.of(n, multiprocessors);
    Writer to = new Writer(step);
    to.put(memory).put(norm).put(output).put(inputs.cos).put(inputs.sin);
    to.put(inputs.slots).put(inputs.begin);
    to.put(inputs.sequences.contextLength()).put(inputs.sequences.blockTable());
    to.put(inputs.state).put(memory + room.queries).put(memory + room.attended);
    to.put(memory + room.gated).put(inputs.logits).put(memory + room.partial);
    to.put(memory + room.largest).put(memory + room.counts);
    to.put(n.layers).put(inputs.rows).put(n.hidden).put(n.inner);
    to.put(n.heads.queries).put(n.heads.kv).put(n.vocab).put(inputs.sequences.maxBlocks());
    to.put(shared.stride).put(shared.slots).put(n.epsilon);
    kernel.with(step).launch(multiprocessors, 1, THREADS, shared.bytes, stream);
  }

  /** Puts the fields of a structure one behind another, none of which is wider than the first. */
  private static final class Writer {
    private final MemorySegment to;
    private long at;

    Writer(MemorySegment to) {
      this.to = to;
    }

    Writer put(long value) {
      to.set(LONG, at, value);
      at += Long.BYTES;
      return this;
    }

    Writer put(int value) {
      to.set(INT, at, value);
      at += Integer.BYTES;
      return this;
    }

    Writer put(float value) {
      to.set(FLOAT, at, value);
      at += Float.BYTES;
      return this;
    }
  }

  @Override
  public void close() {
    module.close();
  }
}
