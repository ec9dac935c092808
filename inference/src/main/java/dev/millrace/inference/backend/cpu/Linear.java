package dev.millrace.inference.backend.cpu;

import static dev.millrace.inference.backend.cpu.DotKernels.ROWS;
import static dev.millrace.inference.backend.cpu.Lanes.LANES;

import dev.millrace.inference.checkpoint.WeightFormat;
import java.lang.foreign.MemorySegment;
import java.util.Arrays;
import org.jspecify.annotations.Nullable;

/**
 * Matrix times rows. One row streams the weights from the file straight through the registers;
 * several rows share weights that were widened to floats, panel by panel, and multiply them in
 * register tiles. Both sum in the order of {@link Lanes}, so a row comes to the same bits on both
 * ways. Used by one thread at a time.
 */
final class Linear {
  /** Weight rows of a panel. */
  private static final int PANEL = 8;

  /** Inputs of a row that are multiplied before the next rows' turn: they stay in the L1 cache. */
  private static final int DEPTH = 512;

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

  /** What to multiply; x is packed, with rows of {@code columns}. */
  private record Job(
      float[] x,
      int rows,
      MemorySegment weights,
      WeightFormat format,
      int columns,
      float @Nullable [] bias,
      float[] out,
      int outputs) {
    int whole() {
      return columns / Packing.STRETCH * Packing.STRETCH;
    }

    long rowBytes() {
      return format.bytes(columns);
    }

    /** Puts down y[row, output] from its running sums, adding what is not a whole stretch. */
    void finish(int row, int output, float[] sums, int at) {
      float y = Lanes.reduce(sums, at);
      int whole = whole();
      if (whole < columns) {
        float rest = 0;
        for (int k = whole; k < columns; k++) {
          float w = format.decode(weights, (long) output * columns + k);
          rest = Math.fma(x[row * columns + k], w, rest);
        }
        y += rest;
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
    float[] input = pack(x, rows, weight);
    Job job =
        new Job(input, rows, weight.data(), weight.format(), columns, bias, out, weight.rows());
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

  private float[] pack(float[] x, int rows, CpuWeight weight) {
    int columns = weight.columns();
    if (weight.format() == WeightFormat.F32) {
      return x;
    }
    if (packed.length < rows * columns) {
      packed = new float[rows * columns];
    }
    float[] to = packed;
    if ((long) rows * columns < SMALL) {
      packRows(weight.format(), x, 0, rows, columns, to);
    } else {
      workers.run(
          (worker, count) ->
              packRows(
                  weight.format(),
                  x,
                  Workers.from(rows, 1, worker, count),
                  Workers.from(rows, 1, worker + 1, count),
                  columns,
                  to));
    }
    return to;
  }

  private static void packRows(
      WeightFormat format, float[] x, int from, int to, int columns, float[] out) {
    for (int r = from; r < to; r++) {
      Packing.input(format, x, r * columns, columns, out, r * columns);
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
      // The same row four times: simpler than a kernel of its own for at most three rows.
      DotKernels.bf16Rows(job.weights, o * rowBytes, 0, job.x, 0, stretches, sums);
      job.finish(0, o, sums, 0);
    }
  }

  private static void panel(Job job, int first, int count, Scratch scratch) {
    int whole = job.whole();
    if (scratch.panel.length < PANEL * whole) {
      scratch.panel = new float[PANEL * whole];
    }
    float[] w = scratch.panel;
    for (int i = 0; i < count; i++) {
      Packing.weights(job.format, job.weights, (first + i) * job.rowBytes(), whole, w, i * whole);
    }
    int pairs = (count + 1) / 2;
    if (count % 2 != 0) {
      Arrays.fill(w, count * whole, (count + 1) * whole, 0);
    }
    for (int r = 0; r < job.rows; r += TOKENS) {
      int rows = Math.min(TOKENS, job.rows - r);
      Arrays.fill(scratch.sums, 0, 2 * pairs * rows * LANES, 0);
      for (int k = 0; k < whole; k += DEPTH) {
        tiles(job, r, rows, w, pairs, k, Math.min(DEPTH, whole - k), scratch.sums);
      }
      for (int i = 0; i < count; i++) {
        for (int t = 0; t < rows; t++) {
          job.finish(r + t, first + i, scratch.sums, (i * rows + t) * LANES);
        }
      }
    }
  }

  private static void tiles(
      Job job, int first, int rows, float[] w, int pairs, int k, int n, float[] sums) {
    int whole = job.whole();
    int stride = job.columns;
    for (int t = 0; t < rows; ) {
      int at = (first + t) * stride + k;
      boolean three = t + 3 <= rows;
      for (int p = 0; p < pairs; p++) {
        int w0 = 2 * p * whole + k;
        int s0 = (2 * p * rows + t) * LANES;
        int s1 = s0 + rows * LANES;
        if (three) {
          DotKernels.tile2x3(w, w0, w0 + whole, job.x, at, stride, n, sums, s0, s1);
        } else {
          DotKernels.tile2x1(w, w0, w0 + whole, job.x, at, n, sums, s0, s1);
        }
      }
      t += three ? 3 : 1;
    }
  }
}
