package dev.millrace.inference.backend.cpu;

import static dev.millrace.inference.backend.cpu.VectorLanes.INTS;
import static dev.millrace.inference.backend.cpu.VectorLanes.WIDTH;
import static dev.millrace.inference.backend.cpu.VectorLanes.load;
import static dev.millrace.inference.backend.cpu.VectorLanes.loadInts;

import dev.millrace.inference.checkpoint.WeightFormat;
import java.lang.foreign.MemorySegment;
import jdk.incubator.vector.FloatVector;
import jdk.incubator.vector.IntVector;
import jdk.incubator.vector.VectorMask;
import jdk.incubator.vector.VectorOperators;

/**
 * Brings inputs and weights into the order that {@link DotKernels} multiplies them in. Whole
 * stretches of {@link #STRETCH} only; what is left of a row stays in its order.
 */
final class Packing {
  /** Inputs that are packed together. */
  static final int STRETCH = 32;

  // Moves the exponent of a half to that of a single: 2^(127 - 15).
  private static final float HALF_TO_SINGLE = 0x1p112f;

  private Packing() {}

  /** Inputs for weights of a format, n a multiple of STRETCH. */
  static void input(WeightFormat format, float[] x, int from, int n, float[] out, int at) {
    if (format == WeightFormat.F32) {
      System.arraycopy(x, from, out, at, n);
      return;
    }
    for (int k = 0; k < n; k += STRETCH) {
      for (int i = 0; i < STRETCH / 2; i++) {
        out[at + k + i] = x[from + k + 2 * i];
        out[at + k + STRETCH / 2 + i] = x[from + k + 2 * i + 1];
      }
    }
  }

  /**
   * Whole stretches of a weight row as floats.
   *
   * @param offset of the row in bytes
   * @param n a multiple of STRETCH
   */
  static void weights(
      WeightFormat format, MemorySegment weights, long offset, int n, float[] out, int at) {
    switch (format) {
      case BF16 -> bf16(weights, offset, n, out, at);
      case F16 -> f16(weights, offset, n, out, at);
      case F32 -> f32(weights, offset, n, out, at);
      case F8_E4M3 -> throw new IllegalArgumentException("FP8 is widened before it comes here");
    }
  }

  private static void bf16(MemorySegment weights, long offset, int n, float[] out, int at) {
    for (int k = 0; k < n; k += STRETCH) {
      for (int i = 0; i < STRETCH / 2; i += WIDTH) {
        IntVector w = loadInts(weights, offset + (k + 2L * i) * 2);
        w.lanewise(VectorOperators.LSHL, 16).reinterpretAsFloats().intoArray(out, at + k + i);
        w.and(0xffff0000).reinterpretAsFloats().intoArray(out, at + k + STRETCH / 2 + i);
      }
    }
  }

  private static void f16(MemorySegment weights, long offset, int n, float[] out, int at) {
    for (int k = 0; k < n; k += STRETCH) {
      for (int i = 0; i < STRETCH / 2; i += WIDTH) {
        IntVector w = loadInts(weights, offset + (k + 2L * i) * 2);
        half(w.lanewise(VectorOperators.LSHL, 16)).intoArray(out, at + k + i);
        half(w).intoArray(out, at + k + STRETCH / 2 + i);
      }
    }
  }

  /** The halves in the upper 16 bits. */
  private static FloatVector half(IntVector bits) {
    IntVector sign = bits.and(0x80000000);
    IntVector magnitude = bits.lanewise(VectorOperators.LSHR, 3).and(0x0fffe000);
    // The product is exact, for subnormal halves too.
    IntVector finite = magnitude.reinterpretAsFloats().mul(HALF_TO_SINGLE).reinterpretAsInts();
    VectorMask<Integer> special =
        magnitude.compare(VectorOperators.GE, IntVector.broadcast(INTS, 0x0f800000));
    return finite.blend(magnitude.or(0x7f800000), special).or(sign).reinterpretAsFloats();
  }

  private static void f32(MemorySegment weights, long offset, int n, float[] out, int at) {
    for (int k = 0; k < n; k += WIDTH) {
      load(weights, offset + k * 4L).intoArray(out, at + k);
    }
  }
}
