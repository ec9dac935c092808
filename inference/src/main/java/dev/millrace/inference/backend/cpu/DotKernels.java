package dev.millrace.inference.backend.cpu;

import static dev.millrace.inference.backend.cpu.Lanes.FLOATS;
import static dev.millrace.inference.backend.cpu.Lanes.LANES;
import static dev.millrace.inference.backend.cpu.Lanes.WIDTH;
import static dev.millrace.inference.backend.cpu.Lanes.load;
import static dev.millrace.inference.backend.cpu.Lanes.loadInts;

import java.lang.foreign.MemorySegment;
import jdk.incubator.vector.FloatVector;
import jdk.incubator.vector.IntVector;
import jdk.incubator.vector.VectorOperators;

/**
 * The inner loops of dot products. Small static methods with one kind of memory each: vectors live
 * in registers only where everything is inlined.
 *
 * <p>16-bit weights are read two at a time as an int, so in their packed order a stretch of 32
 * inputs has its 16 even ones first, then its 16 odd ones; {@link Packing} brings inputs and
 * weights into it.
 */
final class DotKernels {
  /** Weight rows that {@link #bf16Rows} does at once. */
  static final int ROWS = 4;

  private static final int UPPER_HALF = 0xffff0000;

  private DotKernels() {}

  /**
   * Four rows of bf16 weights times one packed input, straight from the file.
   *
   * @param offset of the first row in bytes
   * @param stretches of 32 inputs
   * @param sums [4 · LANES] the running sums of the four rows
   */
  static void bf16Rows(
      MemorySegment weights,
      long offset,
      long rowBytes,
      float[] x,
      int xOffset,
      int stretches,
      float[] sums) {
    for (int lane = 0; lane < 8; lane += WIDTH) {
      FloatVector a0 = FloatVector.zero(FLOATS);
      FloatVector b0 = a0;
      FloatVector a1 = a0;
      FloatVector b1 = a0;
      FloatVector a2 = a0;
      FloatVector b2 = a0;
      FloatVector a3 = a0;
      FloatVector b3 = a0;
      long r0 = offset + lane * 4L;
      long r1 = r0 + rowBytes;
      long r2 = r1 + rowBytes;
      long r3 = r2 + rowBytes;
      int xi = xOffset + lane;
      for (int i = 0; i < stretches; i++) {
        long at = i * 64L;
        FloatVector even = load(x, xi);
        FloatVector odd = load(x, xi + 16);
        a0 = pair(loadInts(weights, r0 + at), even, odd, a0);
        a1 = pair(loadInts(weights, r1 + at), even, odd, a1);
        a2 = pair(loadInts(weights, r2 + at), even, odd, a2);
        a3 = pair(loadInts(weights, r3 + at), even, odd, a3);
        even = load(x, xi + 8);
        odd = load(x, xi + 24);
        b0 = pair(loadInts(weights, r0 + at + 32), even, odd, b0);
        b1 = pair(loadInts(weights, r1 + at + 32), even, odd, b1);
        b2 = pair(loadInts(weights, r2 + at + 32), even, odd, b2);
        b3 = pair(loadInts(weights, r3 + at + 32), even, odd, b3);
        xi += 32;
      }
      a0.intoArray(sums, lane);
      b0.intoArray(sums, lane + 8);
      a1.intoArray(sums, LANES + lane);
      b1.intoArray(sums, LANES + lane + 8);
      a2.intoArray(sums, 2 * LANES + lane);
      b2.intoArray(sums, 2 * LANES + lane + 8);
      a3.intoArray(sums, 3 * LANES + lane);
      b3.intoArray(sums, 3 * LANES + lane + 8);
    }
  }

  private static FloatVector pair(
      IntVector weights, FloatVector even, FloatVector odd, FloatVector sum) {
    FloatVector s = weights.lanewise(VectorOperators.LSHL, 16).reinterpretAsFloats().fma(even, sum);
    return weights.and(UPPER_HALF).reinterpretAsFloats().fma(odd, s);
  }

  /**
   * Two rows times three: adds n products to each of the six dot products' running sums.
   *
   * @param n a multiple of LANES
   * @param sums the running sums of (row 0, input 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), at s0
   *     and s1
   */
  static void tile2x3(
      float[] w,
      int w0,
      int w1,
      float[] x,
      int x0,
      int stride,
      int n,
      float[] sums,
      int s0,
      int s1) {
    int x1 = x0 + stride;
    int x2 = x1 + stride;
    for (int lane = 0; lane < 8; lane += WIDTH) {
      int p = s0 + lane;
      int q = s1 + lane;
      FloatVector a00 = load(sums, p);
      FloatVector b00 = load(sums, p + 8);
      FloatVector a01 = load(sums, p + LANES);
      FloatVector b01 = load(sums, p + LANES + 8);
      FloatVector a02 = load(sums, p + 2 * LANES);
      FloatVector b02 = load(sums, p + 2 * LANES + 8);
      FloatVector a10 = load(sums, q);
      FloatVector b10 = load(sums, q + 8);
      FloatVector a11 = load(sums, q + LANES);
      FloatVector b11 = load(sums, q + LANES + 8);
      FloatVector a12 = load(sums, q + 2 * LANES);
      FloatVector b12 = load(sums, q + 2 * LANES + 8);
      for (int i = lane; i < n + lane; i += LANES) {
        FloatVector u = load(w, w0 + i);
        FloatVector v = load(w, w1 + i);
        FloatVector t = load(x, x0 + i);
        a00 = u.fma(t, a00);
        a10 = v.fma(t, a10);
        t = load(x, x1 + i);
        a01 = u.fma(t, a01);
        a11 = v.fma(t, a11);
        t = load(x, x2 + i);
        a02 = u.fma(t, a02);
        a12 = v.fma(t, a12);
        u = load(w, w0 + i + 8);
        v = load(w, w1 + i + 8);
        t = load(x, x0 + i + 8);
        b00 = u.fma(t, b00);
        b10 = v.fma(t, b10);
        t = load(x, x1 + i + 8);
        b01 = u.fma(t, b01);
        b11 = v.fma(t, b11);
        t = load(x, x2 + i + 8);
        b02 = u.fma(t, b02);
        b12 = v.fma(t, b12);
      }
      a00.intoArray(sums, p);
      b00.intoArray(sums, p + 8);
      a01.intoArray(sums, p + LANES);
      b01.intoArray(sums, p + LANES + 8);
      a02.intoArray(sums, p + 2 * LANES);
      b02.intoArray(sums, p + 2 * LANES + 8);
      a10.intoArray(sums, q);
      b10.intoArray(sums, q + 8);
      a11.intoArray(sums, q + LANES);
      b11.intoArray(sums, q + LANES + 8);
      a12.intoArray(sums, q + 2 * LANES);
      b12.intoArray(sums, q + 2 * LANES + 8);
    }
  }

  /** As {@link #tile2x3}, for one input. */
  static void tile2x1(
      float[] w, int w0, int w1, float[] x, int x0, int n, float[] sums, int s0, int s1) {
    for (int lane = 0; lane < 8; lane += WIDTH) {
      int p = s0 + lane;
      int q = s1 + lane;
      FloatVector a0 = load(sums, p);
      FloatVector b0 = load(sums, p + 8);
      FloatVector a1 = load(sums, q);
      FloatVector b1 = load(sums, q + 8);
      for (int i = lane; i < n + lane; i += LANES) {
        FloatVector t = load(x, x0 + i);
        a0 = load(w, w0 + i).fma(t, a0);
        a1 = load(w, w1 + i).fma(t, a1);
        t = load(x, x0 + i + 8);
        b0 = load(w, w0 + i + 8).fma(t, b0);
        b1 = load(w, w1 + i + 8).fma(t, b1);
      }
      a0.intoArray(sums, p);
      b0.intoArray(sums, p + 8);
      a1.intoArray(sums, q);
      b1.intoArray(sums, q + 8);
    }
  }
}
