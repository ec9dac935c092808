package dev.millrace.inference.backend.cuda;

import dev.millrace.inference.backend.Tensor;
import dev.millrace.kernels.Rows;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;

/**
 * Numbers on a GPU.
 *
 * @param address of the first
 * @param stride numbers from the beginning of a row to that of the next; more than the columns
 *     where tensors lie side by side
 * @param type of the numbers
 * @param owner whether the memory is freed with this tensor
 */
record CudaTensor(
    GpuMemory memory, long address, int rows, int columns, int stride, Type type, boolean owner)
    implements Tensor {

  enum Type {
    BF16(Short.BYTES),
    F32(Float.BYTES);

    final int bytes;

    Type(int bytes) {
      this.bytes = bytes;
    }
  }

  /**
   * Takes memory for a tensor of zeros, which owns it.
   *
   * @param what it is, for messages
   */
  static CudaTensor zeros(GpuMemory memory, String what, int rows, int columns, Type type) {
    long bytes = Math.multiplyExact((long) rows * columns, type.bytes);
    long address = memory.allocate("%s [%d, %d]".formatted(what, rows, columns), bytes);
    memory.zero(address, bytes);
    return new CudaTensor(memory, address, rows, columns, columns, type, true);
  }

  Rows asRows() {
    return new Rows(address, stride);
  }

  boolean contiguous() {
    return stride == columns;
  }

  @Override
  public int elementBytes() {
    return type.bytes;
  }

  @Override
  public float[] toHost(int rows) {
    java.util.Objects.checkIndex(rows, this.rows + 1);
    float[] out = new float[Math.multiplyExact(rows, columns)];
    try (Arena arena = Arena.ofShared()) {
      MemorySegment row = arena.allocate((long) rows * stride * type.bytes, 8);
      // The last row of tensors that lie side by side ends before its stride does.
      memory.download(address, row.asSlice(0, span(rows)));
      for (int i = 0; i < out.length; i++) {
        long at = (long) i / columns * stride + i % columns;
        out[i] =
            type == Type.F32
                ? row.getAtIndex(ValueLayout.JAVA_FLOAT, at)
                : Float.intBitsToFloat(row.getAtIndex(ValueLayout.JAVA_SHORT, at) << 16);
      }
    }
    return out;
  }

  @Override
  public void fromHost(float[] values) {
    int count = values.length / columns;
    java.util.Objects.checkIndex(count, rows + 1);
    if (!contiguous()) {
      throw new UnsupportedOperationException("a tensor beside others is filled by kernels alone");
    }
    try (Arena arena = Arena.ofShared()) {
      MemorySegment from = arena.allocate((long) values.length * type.bytes, 8);
      for (int i = 0; i < values.length; i++) {
        if (type == Type.F32) {
          from.setAtIndex(ValueLayout.JAVA_FLOAT, i, values[i]);
        } else {
          from.setAtIndex(ValueLayout.JAVA_SHORT, i, bf16(values[i]));
        }
      }
      memory.upload(address, from);
    }
  }

  private long span(int rows) {
    return rows == 0 ? 0 : ((long) (rows - 1) * stride + columns) * type.bytes;
  }

  /** To the nearest, ties to even; what is no number stays none. */
  static short bf16(float value) {
    int bits = Float.floatToRawIntBits(value);
    return Float.isNaN(value)
        ? (short) (bits >>> 16 | 0x40)
        : (short) (bits + 0x7FFF + (bits >>> 16 & 1) >>> 16);
  }
}
