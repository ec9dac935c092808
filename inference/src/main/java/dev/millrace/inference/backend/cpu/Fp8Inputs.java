package dev.millrace.inference.backend.cpu;

import dev.millrace.inference.checkpoint.E4m3;
import dev.millrace.inference.checkpoint.Quantization;
import dev.millrace.inference.checkpoint.WeightData;
import dev.millrace.inference.checkpoint.WeightFormat;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;

/** FP8 products by way of those of bfloat16. Used by one thread at a time. */
final class Fp8Inputs {
  private static final ValueLayout.OfShort SHORT =
      ValueLayout.JAVA_SHORT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);

  private float[] rounded = new float[0];

  /** Room for the rounded input of a product. */
  float[] of(int numbers) {
    if (rounded.length < numbers) {
      rounded = new float[numbers];
    }
    return rounded;
  }

  /** The numbers of an FP8 matrix, without their scale, as bfloat16: nothing is lost. */
  static MemorySegment widen(WeightData matrix, Arena arena) {
    long count = (long) matrix.rows() * matrix.columns();
    MemorySegment to = arena.allocate(WeightFormat.BF16.bytes(count), 64);
    for (long i = 0; i < count; i++) {
      float number = E4m3.decode(matrix.data().get(ValueLayout.JAVA_BYTE, i));
      to.set(SHORT, 2 * i, (short) (Float.floatToRawIntBits(number) >>> 16));
    }
    return to;
  }

  /**
   * Rounds a row to what FP8 holds of it, and multiplies it by the scales of both factors.
   *
   * @param at of the row in {@code x} and in {@code out}
   */
  static void round(float[] x, int at, int n, Quantization quantization, float[] out) {
    float scale = quantization.inputScale();
    if (!quantization.fixed()) {
      float largest = 0;
      for (int i = at; i < at + n; i++) {
        // Not max(): what is no number stays alone with that.
        largest = Math.abs(x[i]) > largest ? Math.abs(x[i]) : largest;
      }
      scale = E4m3.scale(largest);
    }
    float back = scale * quantization.scale();
    for (int i = at; i < at + n; i++) {
      out[i] = E4m3.round(x[i] / scale) * back;
    }
  }
}
