package dev.millrace.inference.checkpoint;

import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;
import java.util.Arrays;
import java.util.stream.Collectors;
import org.jspecify.annotations.Nullable;

/**
 * How the numbers of a tensor are stored. {@link #decode} is the reference that every faster path
 * must agree with.
 */
public enum WeightFormat {
  /** The upper half of an IEEE single. */
  BF16(2) {
    @Override
    public float decode(MemorySegment data, long index) {
      return Float.intBitsToFloat(data.get(SHORT, index * 2) << 16);
    }
  },
  /** IEEE half. */
  F16(2) {
    @Override
    public float decode(MemorySegment data, long index) {
      return Float.float16ToFloat(data.get(SHORT, index * 2));
    }
  },
  /** IEEE single. */
  F32(4) {
    @Override
    public float decode(MemorySegment data, long index) {
      return data.get(FLOAT, index * 4);
    }
  },
  /** {@link E4m3}, without the scale that goes with it. */
  F8_E4M3(1) {
    @Override
    public float decode(MemorySegment data, long index) {
      return E4m3.decode(data.get(ValueLayout.JAVA_BYTE, index));
    }
  };

  // Safetensors are little-endian, and their data may begin at any byte.
  private static final ValueLayout.OfShort SHORT =
      ValueLayout.JAVA_SHORT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);
  private static final ValueLayout.OfFloat FLOAT =
      ValueLayout.JAVA_FLOAT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);

  private final int elementBytes;

  WeightFormat(int elementBytes) {
    this.elementBytes = elementBytes;
  }

  /** Bytes of {@code elements} numbers. */
  public long bytes(long elements) {
    return Math.multiplyExact(elements, elementBytes);
  }

  /** The number at {@code index} (in numbers, not bytes) of {@code data}. */
  public abstract float decode(MemorySegment data, long index);

  /** The format that safetensors calls {@code dtype}, or null where it is none of these. */
  public static @Nullable WeightFormat ofDtype(String dtype) {
    for (WeightFormat format : values()) {
      if (format.name().equals(dtype)) {
        return format;
      }
    }
    return null;
  }

  /** The names for messages: {@code BF16, F16, F32, F8_E4M3}. */
  public static String names() {
    return Arrays.stream(values()).map(Enum::name).collect(Collectors.joining(", "));
  }
}
