package dev.millrace.kernels;

import static java.lang.foreign.ValueLayout.ADDRESS;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.invoke.MethodHandle;
import java.util.HashMap;
import java.util.Map;

/**
 * What Hopper's copy engine is told of a layer's keys or values (CUtensorMap), made once for each.
 * It holds addresses, nothing of what is there, so one that is left over harms nobody. One thread
 * at a time.
 */
final class TensorMaps {
  private static final int BYTES = 128;
  private static final int ALIGNMENT = 64;

  // Values of cuda.h.
  private static final int UINT8 = 0;
  private static final int BFLOAT16 = 9;
  private static final int NOT_INTERLEAVED = 0;
  private static final int SWIZZLE_128B = 3;
  private static final int L2_PROMOTION_256B = 3;
  private static final int ZEROS_OUTSIDE = 0;

  /** Bytes of a line in shared memory, and lines of a box there. */
  private static final int LINE_BYTES = 128;

  private static final int BOX_LINES = 8;

  /** Eights of rows: more than any card has. */
  private static final long EIGHTS = 1L << 30;

  private final MethodHandle encode;
  private final Map<Matrix, MemorySegment> made = new HashMap<>();

  private record Matrix(long address, int headDim, int numberBytes) {}

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

  private MemorySegment make(Matrix matrix) {
    MemorySegment map = Arena.ofAuto().allocate(BYTES, ALIGNMENT);
    long row = (long) matrix.headDim * matrix.numberBytes;
    long lines = row / LINE_BYTES;
    int line = LINE_BYTES / matrix.numberBytes; // numbers
    try (Arena arena = Arena.ofConfined()) {
      int result =
          (int)
              encode.invokeExact(
                  map,
                  matrix.numberBytes == 1 ? UINT8 : BFLOAT16,
                  4,
                  matrix.address,
                  arena.allocateFrom(JAVA_LONG, line, BOX_LINES, lines, EIGHTS),
                  arena.allocateFrom(JAVA_LONG, row, LINE_BYTES, BOX_LINES * row),
                  arena.allocateFrom(
                      JAVA_INT,
                      line,
                      BOX_LINES,
                      (int) lines,
                      AttentionKernels.BLOCK_TOKENS / BOX_LINES),
                  arena.allocateFrom(JAVA_INT, 1, 1, 1, 1),
                  NOT_INTERLEAVED,
                  SWIZZLE_128B,
                  L2_PROMOTION_256B,
                  ZEROS_OUTSIDE);
      CudaException.check(
          result,
          "cuTensorMapEncodeTiled",
          "0x" + Long.toHexString(matrix.address),
          "heads of " + matrix.headDim + " numbers of " + matrix.numberBytes + " bytes");
      return map;
    } catch (Throwable e) {
      throw Natives.unchecked(e);
    }
  }
}
