package dev.millrace.inference.model;

import dev.millrace.inference.checkpoint.E4m3;
import dev.millrace.inference.checkpoint.Quantization;
import dev.millrace.inference.checkpoint.WeightData;
import dev.millrace.inference.checkpoint.WeightFormat;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;
import java.util.List;
import java.util.stream.LongStream;

/** FP8 weights from others, and others from them, on the host. */
final class Fp8 {
  private static final int CHUNK = 1 << 20;

  private static final ValueLayout.OfShort SHORT =
      ValueLayout.JAVA_SHORT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);

  private Fp8() {}

  /**
   * Gives FP8 matrices that read one input the largest of their inputs' scales. Their own scales
   * may differ: a backend that multiplies by several at once looks at that.
   *
   * @throws dev.millrace.inference.checkpoint.InvalidCheckpointException if a matrix's scale and
   *     that input's have no product in float
   */
  static List<WeightData> shareInput(List<WeightData> matrices) {
    float largest = 0;
    for (WeightData matrix : matrices) {
      Quantization q = matrix.quantization();
      largest = Math.max(largest, q == null ? 0 : q.inputScale());
    }
    float scale = largest;
    return matrices.stream()
        .map(
            m -> {
              Quantization q = m.quantization();
              if (q == null || !q.fixed()) {
                return m;
              }
              Quantization shared = q.withInputScale(scale);
              shared.check(m.name());
              return with(m, m.data(), shared);
            })
        .toList();
  }

  /**
   * Makes FP8 of matrices that read one input: all with the scale of the largest number among them,
   * so that they can be one product; each row of the input with its own.
   *
   * @param arena for the result
   */
  static List<WeightData> quantise(List<WeightData> matrices, Arena arena) {
    float largest = 0;
    for (WeightData matrix : matrices) {
      largest = Math.max(largest, largest(matrix));
    }
    Quantization quantization = new Quantization(E4m3.scale(largest), Quantization.PER_ROW);
    return matrices.stream().map(m -> quantise(m, quantization, arena)).toList();
  }

  private static float largest(WeightData matrix) {
    WeightFormat format = matrix.format();
    return (float)
        chunks(matrix)
            .mapToDouble(
                from -> {
                  float largest = 0;
                  long end = Math.min(count(matrix), from + CHUNK);
                  for (long i = from; i < end; i++) {
                    // What is no number becomes none of FP8; it must not become the scale.
                    float magnitude = Math.abs(format.decode(matrix.data(), i));
                    largest = magnitude > largest && magnitude < 1e30f ? magnitude : largest;
                  }
                  return largest;
                })
            .max()
            .orElse(0);
  }

  private static WeightData quantise(WeightData matrix, Quantization quantization, Arena arena) {
    MemorySegment to = arena.allocate(count(matrix), 64);
    WeightFormat format = matrix.format();
    float inverse = 1 / quantization.scale();
    chunks(matrix)
        .forEach(
            from -> {
              long end = Math.min(count(matrix), from + CHUNK);
              for (long i = from; i < end; i++) {
                byte code = E4m3.encode(format.decode(matrix.data(), i) * inverse);
                to.set(ValueLayout.JAVA_BYTE, i, code);
              }
            });
    return new WeightData(matrix.name(), WeightFormat.F8_E4M3, matrix.shape(), to, quantization);
  }

  /**
   * Makes bfloat16 of a matrix, each number times its scale, to the nearest, ties to even.
   *
   * @param arena for the result
   */
  static WeightData widen(WeightData matrix, Arena arena) {
    MemorySegment to = arena.allocate(WeightFormat.BF16.bytes(count(matrix)), 64);
    WeightFormat format = matrix.format();
    float scale = matrix.scale();
    chunks(matrix)
        .forEach(
            from -> {
              long end = Math.min(count(matrix), from + CHUNK);
              for (long i = from; i < end; i++) {
                to.set(SHORT, 2 * i, bf16(format.decode(matrix.data(), i) * scale));
              }
            });
    return new WeightData(matrix.name(), WeightFormat.BF16, matrix.shape(), to);
  }

  private static short bf16(float value) {
    int bits = Float.floatToRawIntBits(value);
    return Float.isNaN(value)
        ? (short) (bits >>> 16 | 0x40)
        : (short) (bits + 0x7fff + (bits >>> 16 & 1) >>> 16);
  }

  private static WeightData with(WeightData m, MemorySegment data, Quantization quantization) {
    return new WeightData(m.name(), m.format(), m.shape(), data, quantization);
  }

  private static LongStream chunks(WeightData matrix) {
    return LongStream.range(0, Math.ceilDiv(count(matrix), CHUNK)).parallel().map(i -> i * CHUNK);
  }

  private static long count(WeightData matrix) {
    return (long) matrix.rows() * matrix.columns();
  }
}
