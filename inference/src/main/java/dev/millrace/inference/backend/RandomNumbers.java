package dev.millrace.inference.backend;

import dev.millrace.inference.checkpoint.E4m3;
import dev.millrace.inference.checkpoint.Quantization;
import dev.millrace.inference.checkpoint.WeightData;
import dev.millrace.inference.checkpoint.WeightFormat;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;
import java.util.stream.LongStream;
import org.jspecify.annotations.Nullable;

/**
 * Made-up numbers, made on the host. The number at an index depends on the seed and the index
 * alone, not on how many threads make them.
 */
public final class RandomNumbers {
  private static final int CHUNK = 1 << 16;
  private static final long GOLDEN = 0x9E3779B97F4A7C15L;

  private static final ValueLayout.OfShort SHORT =
      ValueLayout.JAVA_SHORT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);
  private static final ValueLayout.OfFloat FLOAT =
      ValueLayout.JAVA_FLOAT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);

  private RandomNumbers() {}

  /**
   * A matrix in memory that goes when nothing refers to it any more.
   *
   * @param spread numbers lie in [-spread, spread]
   */
  public static WeightData matrix(
      int rows, int columns, WeightFormat format, float spread, long seed) {
    long count = (long) rows * columns;
    MemorySegment data = Arena.ofAuto().allocate(format.bytes(count), 64);
    fill(data, count, format, spread, seed);
    return new WeightData(
        "random", format, new int[] {rows, columns}, data, quantization(format, spread));
  }

  /** Of made-up numbers in FP8: the largest is the largest of e4m3. */
  public static @Nullable Quantization quantization(WeightFormat format, float spread) {
    return format == WeightFormat.F8_E4M3
        ? new Quantization(E4m3.scale(spread), Quantization.PER_ROW)
        : null;
  }

  /** Numbers in [-1, 1). */
  public static float[] vector(int length, long seed) {
    float[] numbers = new float[length];
    for (int i = 0; i < length; i++) {
      numbers[i] = at(seed, i);
    }
    return numbers;
  }

  private static void fill(
      MemorySegment data, long count, WeightFormat format, float spread, long seed) {
    LongStream.range(0, Math.ceilDiv(count, CHUNK))
        .parallel()
        .forEach(
            chunk -> {
              long end = Math.min(count, (chunk + 1) * CHUNK);
              for (long i = chunk * CHUNK; i < end; i++) {
                put(data, i, format, at(seed, i), spread);
              }
            });
  }

  /** The number of an index, in [-1, 1). */
  static float at(long seed, long index) {
    return (mix(seed + (index + 1) * GOLDEN) >> 40) * 0x1p-23f;
  }

  private static void put(
      MemorySegment data, long index, WeightFormat format, float number, float spread) {
    float value = number * spread;
    switch (format) {
      case BF16 -> data.set(SHORT, index * 2, bf16(value));
      case F16 -> data.set(SHORT, index * 2, Float.floatToFloat16(value));
      case F32 -> data.set(FLOAT, index * 4, value);
      case F8_E4M3 -> data.set(ValueLayout.JAVA_BYTE, index, E4m3.encode(number * E4m3.MAX));
    }
  }

  /** Nearest bfloat16, ties to even; finite values only. */
  private static short bf16(float value) {
    int bits = Float.floatToRawIntBits(value);
    return (short) ((bits + 0x7FFF + (bits >>> 16 & 1)) >>> 16);
  }

  /** The output function of SplitMix64 (Steele, Lea, Flood 2014). */
  private static long mix(long z) {
    z = (z ^ (z >>> 30)) * 0xBF58476D1CE4E5B9L;
    z = (z ^ (z >>> 27)) * 0x94D049BB133111EBL;
    return z ^ (z >>> 31);
  }
}
