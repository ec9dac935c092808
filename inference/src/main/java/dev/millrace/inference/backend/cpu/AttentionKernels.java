package dev.millrace.inference.backend.cpu;

import static dev.millrace.inference.backend.cpu.CpuKvCache.BLOCK;
import static dev.millrace.inference.backend.cpu.PagedAttention.TILE;
import static dev.millrace.inference.backend.cpu.VectorLanes.FLOATS;
import static dev.millrace.inference.backend.cpu.VectorLanes.WIDTH;
import static dev.millrace.inference.backend.cpu.VectorLanes.load;

import java.lang.foreign.MemorySegment;
import jdk.incubator.vector.FloatVector;

/**
 * The inner loops of attention. Scores sum over the head's dimensions in ascending order, outputs
 * over positions in ascending order; the lanes are positions there and dimensions here, so their
 * number changes nothing. The forms for four rows and for one compute the same bits.
 */
final class AttentionKernels {
  private AttentionKernels() {}

  /**
   * Scores of four rows and the {@link CpuKvCache#BLOCK} positions of a block: row i's go to
   * scores[i · TILE + to].
   *
   * @param block byte offset of the head's keys, [dimension][position]
   * @param at where the rows' queries begin, from {@code row} on
   */
  static void scores4(
      MemorySegment keys,
      long block,
      int d,
      float[] q,
      int[] at,
      int row,
      float scale,
      float[] scores,
      int to) {
    int q0 = at[row];
    int q1 = at[row + 1];
    int q2 = at[row + 2];
    int q3 = at[row + 3];
    for (int lane = 0; lane < 8; lane += WIDTH) {
      FloatVector a0 = FloatVector.zero(FLOATS);
      FloatVector b0 = a0;
      FloatVector a1 = a0;
      FloatVector b1 = a0;
      FloatVector a2 = a0;
      FloatVector b2 = a0;
      FloatVector a3 = a0;
      FloatVector b3 = a0;
      long k = block + lane * 4L;
      for (int i = 0; i < d; i++) {
        long p = k + i * (BLOCK * 4L);
        FloatVector u = load(keys, p);
        FloatVector v = load(keys, p + 32);
        FloatVector x = FloatVector.broadcast(FLOATS, q[q0 + i]);
        a0 = u.fma(x, a0);
        b0 = v.fma(x, b0);
        x = FloatVector.broadcast(FLOATS, q[q1 + i]);
        a1 = u.fma(x, a1);
        b1 = v.fma(x, b1);
        x = FloatVector.broadcast(FLOATS, q[q2 + i]);
        a2 = u.fma(x, a2);
        b2 = v.fma(x, b2);
        x = FloatVector.broadcast(FLOATS, q[q3 + i]);
        a3 = u.fma(x, a3);
        b3 = v.fma(x, b3);
      }
      int s = to + lane;
      a0.mul(scale).intoArray(scores, s);
      b0.mul(scale).intoArray(scores, s + 8);
      a1.mul(scale).intoArray(scores, s + TILE);
      b1.mul(scale).intoArray(scores, s + TILE + 8);
      a2.mul(scale).intoArray(scores, s + 2 * TILE);
      b2.mul(scale).intoArray(scores, s + 2 * TILE + 8);
      a3.mul(scale).intoArray(scores, s + 3 * TILE);
      b3.mul(scale).intoArray(scores, s + 3 * TILE + 8);
    }
  }

  /**
   * As {@link #scores4} for one row, whose query begins at {@code q0}, and two blocks: four
   * independent sums hide the latency of each. The second block's go behind the first's.
   */
  static void scores1(
      MemorySegment keys,
      long block0,
      long block1,
      int d,
      float[] q,
      int q0,
      float scale,
      float[] scores,
      int to) {
    for (int lane = 0; lane < 8; lane += WIDTH) {
      FloatVector a0 = FloatVector.zero(FLOATS);
      FloatVector b0 = FloatVector.zero(FLOATS);
      FloatVector a1 = FloatVector.zero(FLOATS);
      FloatVector b1 = FloatVector.zero(FLOATS);
      long k0 = block0 + lane * 4L;
      long k1 = block1 + lane * 4L;
      for (int i = 0; i < d; i++) {
        long p = i * (BLOCK * 4L);
        FloatVector x = FloatVector.broadcast(FLOATS, q[q0 + i]);
        a0 = load(keys, k0 + p).fma(x, a0);
        b0 = load(keys, k0 + p + 32).fma(x, b0);
        a1 = load(keys, k1 + p).fma(x, a1);
        b1 = load(keys, k1 + p + 32).fma(x, b1);
      }
      int s = to + lane;
      a0.mul(scale).intoArray(scores, s);
      b0.mul(scale).intoArray(scores, s + 8);
      a1.mul(scale).intoArray(scores, s + BLOCK);
      b1.mul(scale).intoArray(scores, s + BLOCK + 8);
    }
  }

  /**
   * out[i] = out[i] · factor[i] + Σ weight[i, position] · value[position], for four rows and the
   * first {@code seen} positions of a tile.
   *
   * @param blocks byte offsets of the head's values, [position][dimension]
   * @param d a multiple of 16
   */
  static void values4(
      MemorySegment values,
      long[] blocks,
      int seen,
      int d,
      float[] weights,
      float[] factor,
      float[] out,
      int[] at,
      int row) {
    for (int c = 0; c < d; c += 16) {
      int o0 = at[row] + c;
      int o1 = at[row + 1] + c;
      int o2 = at[row + 2] + c;
      int o3 = at[row + 3] + c;
      for (int lane = 0; lane < 8; lane += WIDTH) {
        FloatVector a0 = load(out, o0 + lane).mul(factor[0]);
        FloatVector b0 = load(out, o0 + lane + 8).mul(factor[0]);
        FloatVector a1 = load(out, o1 + lane).mul(factor[1]);
        FloatVector b1 = load(out, o1 + lane + 8).mul(factor[1]);
        FloatVector a2 = load(out, o2 + lane).mul(factor[2]);
        FloatVector b2 = load(out, o2 + lane + 8).mul(factor[2]);
        FloatVector a3 = load(out, o3 + lane).mul(factor[3]);
        FloatVector b3 = load(out, o3 + lane + 8).mul(factor[3]);
        for (int first = 0; first < seen; first += BLOCK) {
          long p = blocks[first / BLOCK] + (c + lane) * 4L;
          int end = Math.min(seen, first + BLOCK);
          for (int j = first; j < end; j++) {
            FloatVector u = load(values, p);
            FloatVector v = load(values, p + 32);
            FloatVector w = FloatVector.broadcast(FLOATS, weights[j]);
            a0 = u.fma(w, a0);
            b0 = v.fma(w, b0);
            w = FloatVector.broadcast(FLOATS, weights[TILE + j]);
            a1 = u.fma(w, a1);
            b1 = v.fma(w, b1);
            w = FloatVector.broadcast(FLOATS, weights[2 * TILE + j]);
            a2 = u.fma(w, a2);
            b2 = v.fma(w, b2);
            w = FloatVector.broadcast(FLOATS, weights[3 * TILE + j]);
            a3 = u.fma(w, a3);
            b3 = v.fma(w, b3);
            p += d * 4L;
          }
        }
        a0.intoArray(out, o0 + lane);
        b0.intoArray(out, o0 + lane + 8);
        a1.intoArray(out, o1 + lane);
        b1.intoArray(out, o1 + lane + 8);
        a2.intoArray(out, o2 + lane);
        b2.intoArray(out, o2 + lane + 8);
        a3.intoArray(out, o3 + lane);
        b3.intoArray(out, o3 + lane + 8);
      }
    }
  }

  /** As {@link #values4} for one row, whose output begins at {@code o}. */
  static void values1(
      MemorySegment values,
      long[] blocks,
      int seen,
      int d,
      float[] weights,
      float factor,
      float[] out,
      int o) {
    int c = 0;
    for (; c + 32 <= d; c += 32) {
      values1Of32(values, blocks, seen, d, weights, factor, out, o, c);
    }
    if (c < d) {
      values1Of16(values, blocks, seen, d, weights, factor, out, o, c);
    }
  }

  /** Dimensions [c, c + 32): four independent sums hide the latency of each. */
  private static void values1Of32(
      MemorySegment values,
      long[] blocks,
      int seen,
      int d,
      float[] weights,
      float factor,
      float[] out,
      int o,
      int c) {
    for (int lane = 0; lane < 8; lane += WIDTH) {
      int at = o + c + lane;
      FloatVector a0 = load(out, at).mul(factor);
      FloatVector b0 = load(out, at + 8).mul(factor);
      FloatVector a1 = load(out, at + 16).mul(factor);
      FloatVector b1 = load(out, at + 24).mul(factor);
      for (int first = 0; first < seen; first += BLOCK) {
        long p = blocks[first / BLOCK] + (c + lane) * 4L;
        int end = Math.min(seen, first + BLOCK);
        for (int j = first; j < end; j++) {
          FloatVector w = FloatVector.broadcast(FLOATS, weights[j]);
          a0 = load(values, p).fma(w, a0);
          b0 = load(values, p + 32).fma(w, b0);
          a1 = load(values, p + 64).fma(w, a1);
          b1 = load(values, p + 96).fma(w, b1);
          p += d * 4L;
        }
      }
      a0.intoArray(out, at);
      b0.intoArray(out, at + 8);
      a1.intoArray(out, at + 16);
      b1.intoArray(out, at + 24);
    }
  }

  private static void values1Of16(
      MemorySegment values,
      long[] blocks,
      int seen,
      int d,
      float[] weights,
      float factor,
      float[] out,
      int o,
      int c) {
    for (int lane = 0; lane < 8; lane += WIDTH) {
      FloatVector a = load(out, o + c + lane).mul(factor);
      FloatVector b = load(out, o + c + lane + 8).mul(factor);
      for (int first = 0; first < seen; first += BLOCK) {
        long p = blocks[first / BLOCK] + (c + lane) * 4L;
        int end = Math.min(seen, first + BLOCK);
        for (int j = first; j < end; j++) {
          FloatVector w = FloatVector.broadcast(FLOATS, weights[j]);
          a = load(values, p).fma(w, a);
          b = load(values, p + 32).fma(w, b);
          p += d * 4L;
        }
      }
      a.intoArray(out, o + c + lane);
      b.intoArray(out, o + c + lane + 8);
    }
  }

  /** x /= by, over [at, at + n), n a multiple of 8. */
  static void divide(float[] x, int at, int n, float by) {
    for (int i = at; i < at + n; i += WIDTH) {
      load(x, i).div(by).intoArray(x, i);
    }
  }
}
