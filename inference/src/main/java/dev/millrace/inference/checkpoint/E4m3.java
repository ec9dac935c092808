package dev.millrace.inference.checkpoint;

/**
 * Eight-bit floating point, {@code float8_e4m3fn}: a sign, four bits of exponent with bias 7, three
 * of mantissa; no infinities, and of all patterns only 0x7f and 0xff are no number ("FP8 Formats
 * for Deep Learning", Micikevicius and others, 2022).
 */
public final class E4m3 {
  /** The largest number. */
  public static final float MAX = 448;

  private static final int NAN = 0x7f;
  private static final int LARGEST = 0x7e;
  private static final float LEAST_NORMAL = 0x1p-6f;
  private static final float LEAST = 0x1p-9f;

  private static final float[] VALUES = new float[256];

  static {
    for (int code = 0; code < 256; code++) {
      int exponent = code >> 3 & 15;
      int mantissa = code & 7;
      float magnitude =
          (code & NAN) == NAN
              ? Float.NaN
              : exponent == 0 ? mantissa * LEAST : Math.scalb(1 + mantissa / 8f, exponent - 7);
      VALUES[code] = code < 128 ? magnitude : -magnitude;
    }
  }

  private E4m3() {}

  /** The number of a pattern. */
  public static float decode(byte code) {
    return VALUES[code & 0xff];
  }

  /**
   * The nearest pattern, ties to even; what is larger than {@link #MAX} becomes that, infinities
   * too, and what is no number stays none.
   */
  public static byte encode(float value) {
    int bits = Float.floatToRawIntBits(value);
    int sign = bits >>> 24 & 0x80;
    float magnitude = Math.abs(value);
    int code;
    if (Float.isNaN(value)) {
      code = NAN;
    } else if (magnitude < LEAST_NORMAL) {
      code = (int) Math.rint(magnitude / LEAST);
    } else {
      int m = bits & 0x7fffffff;
      int rounded = m + 0x7ffff + (m >>> 20 & 1) >>> 20;
      code = Math.min(LARGEST, rounded - (127 - 7 << 3));
    }
    return (byte) (sign | code);
  }

  /** The nearest number that there is a pattern for. */
  public static float round(float value) {
    return decode(encode(value));
  }

  /**
   * What numbers are divided by so that the largest of them becomes {@link #MAX}; 1 where all are
   * nothing.
   *
   * @param largest absolute value of all
   */
  public static float scale(float largest) {
    return largest > 0 ? Math.max(largest / MAX, Float.MIN_NORMAL) : 1;
  }
}
