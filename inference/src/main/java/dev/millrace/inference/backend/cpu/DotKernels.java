package dev.millrace.inference.backend.cpu;

import static dev.millrace.inference.backend.cpu.VectorLanes.FLOATS;
import static dev.millrace.inference.backend.cpu.VectorLanes.LANES;
import static dev.millrace.inference.backend.cpu.VectorLanes.WIDTH;
import static dev.millrace.inference.backend.cpu.VectorLanes.load;
import static dev.millrace.inference.backend.cpu.VectorLanes.loadInts;

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
  /**
   * Weight rows that {@link #bf16Rows} does at once. Not more: the compiler stops inlining in a
   * method of many memory accesses, and vectors would go through the heap.
   */
  static final int ROWS = 2;

  private static final int UPPER_HALF = 0xffff0000;

  private DotKernels() {}

  /**
   * Two rows of bf16 weights times one packed input, straight from the file.
   *
   * @param offset of the first row in bytes
   * @param stretches of 32 inputs
   * @param sums [2 · LANES] the running sums of the two rows
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
      FloatVector b0 = FloatVector.zero(FLOATS);
      FloatVector a1 = FloatVector.zero(FLOATS);
      FloatVector b1 = FloatVector.zero(FLOATS);
      long r0 = offset + lane * 4L;
      long r1 = r0 + rowBytes;
      int xi = xOffset + lane;
      for (int i = 0; i < stretches; i++) {
        long at = i * 64L;
        FloatVector even = load(x, xi);
        FloatVector odd = load(x, xi + 16);
        a0 = pair(loadInts(weights, r0 + at), even, odd, a0);
        a1 = pair(loadInts(weights, r1 + at), even, odd, a1);
        even = load(x, xi + 8);
        odd = load(x, xi + 24);
        b0 = pair(loadInts(weights, r0 + at + 32), even, odd, b0);
        b1 = pair(loadInts(weights, r1 + at + 32), even, odd, b1);
        xi += 32;
      }
      a0.intoArray(sums, lane);
      b0.intoArray(sums, lane + 8);
      a1.intoArray(sums, LANES + lane);
      b1.intoArray(sums, LANES + lane + 8);
    }
  }

  private static FloatVector pair(
      IntVector weights, FloatVector even, FloatVector odd, FloatVector sum) {
    return upper(weights).fma(odd, lower(weights).fma(even, sum));
  }

  private static FloatVector lower(IntVector pairs) {
    return pairs.lanewise(VectorOperators.LSHL, 16).reinterpretAsFloats();
  }

  private static FloatVector upper(IntVector pairs) {
    return pairs.and(UPPER_HALF).reinterpretAsFloats();
  }

  /**
   * Five rows times two inputs: adds n products to the running sums of each of the ten dot
   * products. Ten sums, two inputs and a weight are what fits the registers of a machine with 16.
   *
   * @param w rows of a panel, one every {@code wStride}
   * @param x inputs, one every {@code xStride}
   * @param n a multiple of LANES
   * @param sums of (row r, input i) at {@code s + r · sStride + i · LANES}
   */
  static void tile5x2(
      float[] w,
      int w0,
      int wStride,
      float[] x,
      int x0,
      int xStride,
      int n,
      float[] sums,
      int s,
      int sStride) {
    int w1 = w0 + wStride;
    int w2 = w1 + wStride;
    int w3 = w2 + wStride;
    int w4 = w3 + wStride;
    int x1 = x0 + xStride;
    for (int lane = 0; lane < LANES; lane += WIDTH) {
      int p0 = s + lane;
      int p1 = p0 + sStride;
      int p2 = p1 + sStride;
      int p3 = p2 + sStride;
      int p4 = p3 + sStride;
      FloatVector a0 = load(sums, p0);
      FloatVector b0 = load(sums, p0 + LANES);
      FloatVector a1 = load(sums, p1);
      FloatVector b1 = load(sums, p1 + LANES);
      FloatVector a2 = load(sums, p2);
      FloatVector b2 = load(sums, p2 + LANES);
      FloatVector a3 = load(sums, p3);
      FloatVector b3 = load(sums, p3 + LANES);
      FloatVector a4 = load(sums, p4);
      FloatVector b4 = load(sums, p4 + LANES);
      int end = lane + n;
      // With "<" the compiler unrolls the loop, runs out of registers and takes twice as long.
      for (int i = lane; i != end; i += LANES) {
        FloatVector t = load(x, x0 + i);
        FloatVector u = load(x, x1 + i);
        FloatVector v = load(w, w0 + i);
        a0 = v.fma(t, a0);
        b0 = v.fma(u, b0);
        v = load(w, w1 + i);
        a1 = v.fma(t, a1);
        b1 = v.fma(u, b1);
        v = load(w, w2 + i);
        a2 = v.fma(t, a2);
        b2 = v.fma(u, b2);
        v = load(w, w3 + i);
        a3 = v.fma(t, a3);
        b3 = v.fma(u, b3);
        v = load(w, w4 + i);
        a4 = v.fma(t, a4);
        b4 = v.fma(u, b4);
      }
      a0.intoArray(sums, p0);
      b0.intoArray(sums, p0 + LANES);
      a1.intoArray(sums, p1);
      b1.intoArray(sums, p1 + LANES);
      a2.intoArray(sums, p2);
      b2.intoArray(sums, p2 + LANES);
      a3.intoArray(sums, p3);
      b3.intoArray(sums, p3 + LANES);
      a4.intoArray(sums, p4);
      b4.intoArray(sums, p4 + LANES);
    }
  }

  /** As {@link #tile5x2}, for one input. */
  static void tile5x1(
      float[] w, int w0, int wStride, float[] x, int x0, int n, float[] sums, int s, int sStride) {
    int w1 = w0 + wStride;
    int w2 = w1 + wStride;
    int w3 = w2 + wStride;
    int w4 = w3 + wStride;
    for (int lane = 0; lane < LANES; lane += WIDTH) {
      int p0 = s + lane;
      int p1 = p0 + sStride;
      int p2 = p1 + sStride;
      int p3 = p2 + sStride;
      int p4 = p3 + sStride;
      FloatVector a0 = load(sums, p0);
      FloatVector a1 = load(sums, p1);
      FloatVector a2 = load(sums, p2);
      FloatVector a3 = load(sums, p3);
      FloatVector a4 = load(sums, p4);
      for (int i = lane; i < lane + n; i += LANES) {
        FloatVector t = load(x, x0 + i);
        a0 = load(w, w0 + i).fma(t, a0);
        a1 = load(w, w1 + i).fma(t, a1);
        a2 = load(w, w2 + i).fma(t, a2);
        a3 = load(w, w3 + i).fma(t, a3);
        a4 = load(w, w4 + i).fma(t, a4);
      }
      a0.intoArray(sums, p0);
      a1.intoArray(sums, p1);
      a2.intoArray(sums, p2);
      a3.intoArray(sums, p3);
      a4.intoArray(sums, p4);
    }
  }
}
