package dev.millrace.kernels;

import static java.lang.foreign.ValueLayout.ADDRESS;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.invoke.MethodHandle;
import java.util.Arrays;
import java.util.HashMap;
import java.util.Map;

/**
 * What Hopper's copy engine is told of a matrix (CUtensorMap): keys or values of a layer, weights,
 * or what they multiply; made once for each. It holds addresses, nothing of what is there, so one
 * that is left over harms nobody. One thread at a time.
 */
final class TensorMaps {
  private static final int BYTES = 128;
  private static final int ALIGNMENT = 64;

  // Values of cuda.h.
  private static final int UINT8 = 0;
  private static final int BFLOAT16 = 9;
  private static final int NOT_INTERLEAVED = 0;
  private static final int SWIZZLE_128B = 3;
  private static final int L2_PROMOTION_128B = 2;
  private static final int L2_PROMOTION_256B = 3;
  private static final int ZEROS_OUTSIDE = 0;

  /** Bytes of a line in shared memory, and lines of a box there. */
  private static final int LINE_BYTES = 128;

  private static final int BOX_LINES = 8;

  /** Eights of rows: more than any card has. */
  private static final long EIGHTS = 1L << 30;

  private final MethodHandle encode;
  private final Map<Matrix, MemorySegment> made = new HashMap<>();
  private final Map<Lines, MemorySegment> lines = new HashMap<>();

  private record Matrix(long address, int headDim, int numberBytes) {}

  private record Lines(Rows at, int rows, int columns, int bytes, int boxRows) {}

  TensorMaps(Natives driver) {
    this.encode =
        driver.function(
            "cuTensorMapEncodeTiled",
            ADDRESS, // the map
            JAVA_INT, // type of a number
            JAVA_INT, // dimensions
            JAVA_LONG, // address
            ADDRESS, // sizes
            ADDRESS, // bytes from one to the next, but for the first dimension
            ADDRESS, // sizes of what is copied at a time
            ADDRESS, // steps
            JAVA_INT, // interleaving
            JAVA_INT, // swizzling
            JAVA_INT, // promotion to L2
            JAVA_INT); // what lies outside
  }

  /**
   * Of rows of a head each, which follow one another: a block of the cache at a time, to boxes of
   * shared memory as wgmma.cuh has them. The last of its four dimensions is eights of rows.
   *
   * @param headDim whole lines of 128 bytes
   * @param numberBytes 2: bfloat16 or halves; 1: e4m3
   */
  MemorySegment of(long address, int headDim, int numberBytes) {
    return made.computeIfAbsent(new Matrix(address, headDim, numberBytes), this::make);
  }

  /**
   * Of rows of a matrix: a line of 128 bytes of {@code boxRows} of them at a time, to boxes of
   * shared memory as wgmma.cuh has them. What lies outside comes as zeros.
   *
   * @param at its address and stride, multiples of 16 bytes
   * @param bytes of a number: 1, or 2 of bfloat16
   * @param boxRows at most 256
   */
  MemorySegment lines(Rows at, int rows, int columns, int bytes, int boxRows) {
    return lines.computeIfAbsent(new Lines(at, rows, columns, bytes, boxRows), this::make);
  }

  private MemorySegment make(Lines matrix) {
    Rows at = matrix.at;
    try (Arena arena = Arena.ofConfined()) {
      return make(
          matrix.bytes == 1 ? UINT8 : BFLOAT16,
          2,
          at.address(),
          arena.allocateFrom(JAVA_LONG, matrix.columns, matrix.rows),
          arena.allocateFrom(JAVA_LONG, (long) at.stride() * matrix.bytes),
          arena.allocateFrom(JAVA_INT, LINE_BYTES / matrix.bytes, matrix.boxRows),
          L2_PROMOTION_128B);
    }
  }

  private MemorySegment make(Matrix matrix) {
    long row = (long) matrix.headDim * matrix.numberBytes;
    long lines = row / LINE_BYTES;
    int line = LINE_BYTES / matrix.numberBytes; // numbers
    try (Arena arena = Arena.ofConfined()) {
      return make(
          matrix.numberBytes == 1 ? UINT8 : BFLOAT16,
          4,
          matrix.address,
          arena.allocateFrom(JAVA_LONG, line, BOX_LINES, lines, EIGHTS),
          arena.allocateFrom(JAVA_LONG, row, LINE_BYTES, BOX_LINES * row),
          arena.allocateFrom(
              JAVA_INT, line, BOX_LINES, (int) lines, AttentionKernels.BLOCK_TOKENS / BOX_LINES),
          L2_PROMOTION_256B);
    }
  }

  private MemorySegment make(
      int type,
      int dimensions,
      long address,
      MemorySegment sizes,
      MemorySegment strides,
      MemorySegment box,
      int promotion) {
    MemorySegment map = Arena.ofAuto().allocate(BYTES, ALIGNMENT);
    try (Arena arena = Arena.ofConfined()) {
      int[] ones = new int[dimensions];
      Arrays.fill(ones, 1);
      int result =
          (int)
              encode.invokeExact(
                  map,
                  type,
                  dimensions,
                  address,
                  sizes,
                  strides,
                  box,
                  arena.allocateFrom(JAVA_INT, ones),
                  NOT_INTERLEAVED,
                  SWIZZLE_128B,
                  promotion,
                  ZEROS_OUTSIDE);
      CudaException.check(
          result,
          "cuTensorMapEncodeTiled",
          "0x" + Long.toHexString(address),
          "sizes " + Arrays.toString(sizes.toArray(JAVA_LONG)),
          "boxes of " + Arrays.toString(box.toArray(JAVA_INT)));
      return map;
    } catch (Throwable e) {
      throw Natives.unchecked(e);
    }
  }
}
