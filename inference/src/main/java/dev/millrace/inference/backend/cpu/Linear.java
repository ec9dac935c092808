package dev.millrace.inference.backend.cpu;

import static dev.millrace.inference.backend.cpu.DotKernels.ROWS;
import static dev.millrace.inference.backend.cpu.VectorLanes.LANES;

import dev.millrace.inference.checkpoint.WeightFormat;
import java.lang.foreign.MemorySegment;
import java.util.Arrays;
import org.jspecify.annotations.Nullable;

/**
 * Matrix times rows. One row streams the weights from the file straight through the registers;
 * several rows share weights that were widened to floats, panel by panel, and multiply them in
 * register tiles. Both sum in the order of {@link VectorLanes}, so a row comes to the same bits on
 * both ways. Used by one thread at a time.
 */
final class Linear {
  /** Weight rows of a tile. */
  private static final int TILE = 5;

  /** Weight rows of a panel. */
  private static final int PANEL = 2 * TILE;

  /**
   * Inputs of a row that are multiplied before the next rows' turn: they stay in the L1 cache. A
   * multiple of a stretch.
   */
  private static final int DEPTH = 512;

  /** Distance of a panel's rows: at a power of two they would fight for one set of the cache. */
  private static final int PANEL_STRIDE = DEPTH + LANES;

  /** Rows of x that share a visit of a panel: their running sums stay in the L2 cache. */
  private static final int TOKENS = 48;

  /** Multiplications below which another thread's help costs more than it brings. */
  private static final long SMALL = 50_000;

  private final Workers workers;
  private final Scratch[] scratch;
  private float[] packed = new float[0];

  private static final class Scratch {
    final float[] sums = new float[PANEL * TOKENS * LANES];
    float[] panel = new float[0];
  }

  /**
   * What to multiply. The inputs are packed, and lie slab by slab of {@link #DEPTH} inputs of all
   * rows, so that what is multiplied together is near together; after the slabs comes what is not a
   * whole stretch, row by row.
   */
  private record Job(
      float[] x,
      int rows,
      MemorySegment weights,
      WeightFormat format,
      int columns,
      float @Nullable [] bias,
      float[] out,
      int outputs) {
    /** Inputs in whole stretches. */
    int whole() {
      return columns / Packing.STRETCH * Packing.STRETCH;
    }

    long rowBytes() {
      return format.bytes(columns);
    }

    /** Inputs of the slab that begins with input k. */
    int depth(int k) {
      return Math.min(DEPTH, whole() - k);
    }

    /** Where a row's part of that slab begins in x. */
    int at(int row, int k) {
      return k * rows + row * depth(k);
    }

    void pack(float[] from, int row) {
      int whole = whole();
      for (int k = 0; k < whole; k += DEPTH) {
        Packing.input(format, from, row * columns + k, depth(k), x, at(row, k));
      }
      int rest = columns - whole;
      System.arraycopy(from, row * columns + whole, x, whole * rows + row * rest, rest);
    }

    /** Puts down y[row, output] from its running sums, adding what is not a whole stretch. */
    void finish(int row, int output, float[] sums, int at) {
      float y = VectorLanes.reduce(sums, at);
      int whole = whole();
      int rest = columns - whole;
      if (rest > 0) {
        float sum = 0;
        for (int k = 0; k < rest; k++) {
          float w = format.decode(weights, (long) output * columns + whole + k);
          sum = Math.fma(x[whole * rows + row * rest + k], w, sum);
        }
        y += sum;
      }
      out[row * outputs + output] = bias == null ? y : y + bias[output];
    }
  }

  Linear(Workers workers) {
    this.workers = workers;
    this.scratch = new Scratch[workers.count()];
    Arrays.setAll(scratch, i -> new Scratch());
  }

  /**
   * out[r] = weights · x[r] + bias.
   *
   * @param x [rows, weight columns]
   * @param out [rows, weight rows]
   */
  void multiply(float[] x, int rows, CpuWeight weight, float @Nullable [] bias, float[] out) {
    int columns = weight.columns();
    if (packed.length < rows * columns) {
      packed = new float[rows * columns];
    }
    Job job =
        new Job(packed, rows, weight.data(), weight.format(), columns, bias, out, weight.rows());
    pack(job, x);
    boolean direct = rows == 1 && weight.format() == WeightFormat.BF16;
    int grain = direct ? ROWS : PANEL;
    if ((long) rows * columns * weight.rows() < SMALL) {
      part(job, direct, 0, weight.rows(), scratch[0]);
    } else {
      workers.run(
          (worker, count) ->
              part(
                  job,
                  direct,
                  Workers.from(weight.rows(), grain, worker, count),
                  Workers.from(weight.rows(), grain, worker + 1, count),
                  scratch[worker]));
    }
  }

  private void pack(Job job, float[] x) {
    if ((long) job.rows * job.columns < SMALL) {
      packRows(job, x, 0, job.rows);
    } else {
      workers.run(
          (worker, count) ->
              packRows(
                  job,
                  x,
                  Workers.from(job.rows, 1, worker, count),
                  Workers.from(job.rows, 1, worker + 1, count)));
    }
  }

  private static void packRows(Job job, float[] x, int from, int to) {
    for (int r = from; r < to; r++) {
      job.pack(x, r);
    }
  }

  private static void part(Job job, boolean direct, int from, int to, Scratch scratch) {
    if (direct) {
      stream(job, from, to, scratch.sums);
    } else {
      for (int o = from; o < to; o += PANEL) {
        panel(job, o, Math.min(PANEL, to - o), scratch);
      }
    }
  }

  private static void stream(Job job, int from, int to, float[] sums) {
    long rowBytes = job.rowBytes();
    int stretches = job.whole() / Packing.STRETCH;
    int o = from;
    for (; o + ROWS <= to; o += ROWS) {
      DotKernels.bf16Rows(job.weights, o * rowBytes, rowBytes, job.x, 0, stretches, sums);
      for (int i = 0; i < ROWS; i++) {
        job.finish(0, o + i, sums, i * LANES);
      }
    }
    for (; o < to; o++) {
      // The same row twice: simpler than a kernel of its own for one row.
      DotKernels.bf16Rows(job.weights, o * rowBytes, 0, job.x, 0, stretches, sums);
      job.finish(0, o, sums, 0);
    }
  }

  private static void panel(Job job, int first, int count, Scratch scratch) {
    int whole = job.whole();
    int slabs = Math.ceilDiv(whole, DEPTH);
    if (scratch.panel.length < slabs * PANEL * PANEL_STRIDE) {
      scratch.panel = new float[slabs * PANEL * PANEL_STRIDE];
    }
    // The last panel may end within a tile: its missing rows are old or zero, and nobody takes
    // their sums.
    float[] w = scratch.panel;
    for (int i = 0; i < count; i++) {
      long offset = (first + i) * job.rowBytes();
      for (int k = 0; k < whole; k += DEPTH) {
        int at = (k / DEPTH * PANEL + i) * PANEL_STRIDE;
        Packing.weights(job.format, job.weights, offset + job.format.bytes(k), job.depth(k), w, at);
      }
    }
    int tiles = Math.ceilDiv(count, TILE);
    for (int r = 0; r < job.rows; r += TOKENS) {
      int rows = Math.min(TOKENS, job.rows - r);
      Arrays.fill(scratch.sums, 0, tiles * TILE * rows * LANES, 0);
      for (int k = 0; k < whole; k += DEPTH) {
        tiles(job, r, rows, w, tiles, k, scratch.sums);
      }
      for (int t = 0; t < rows; t++) {
        for (int i = 0; i < count; i++) {
          job.finish(r + t, first + i, scratch.sums, (i * rows + t) * LANES);
        }
      }
    }
  }

  private static void tiles(
      Job job, int first, int rows, float[] w, int tiles, int k, float[] sums) {
    int n = job.depth(k);
    int panel = k / DEPTH * PANEL * PANEL_STRIDE;
    for (int t = 0; t < rows; t += 2) {
      int x = job.at(first + t, k);
      for (int i = 0; i < tiles; i++) {
        int from = panel + i * TILE * PANEL_STRIDE;
        int s = (i * TILE * rows + t) * LANES;
        if (t + 1 < rows) {
          DotKernels.tile5x2(w, from, PANEL_STRIDE, job.x, x, n, n, sums, s, rows * LANES);
        } else {
          DotKernels.tile5x1(w, from, PANEL_STRIDE, job.x, x, n, sums, s, rows * LANES);
        }
      }
    }
  }
}
