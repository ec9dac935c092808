package dev.millrace.kernels;

import java.lang.foreign.MemorySegment;
import java.util.Objects;
import jcuda.Pointer;
import jcuda.driver.JCudaDriver;

/**
 * Memory of the host that a GPU can copy from and to while others compute. Whoever allocates it
 * frees it by closing.
 */
public final class PinnedMemory implements AutoCloseable {
  private final Pointer pointer = new Pointer();
  private final MemorySegment segment;

  /** In the current context; at most 2 GB. */
  public PinnedMemory(long bytes) {
    CudaException.check(
        JCudaDriver.cuMemHostAlloc(pointer, bytes, 0), "cuMemHostAlloc", bytes + " bytes");
    this.segment = MemorySegment.ofBuffer(pointer.getByteBuffer(0, bytes));
  }

  /** Valid until this closes. */
  public MemorySegment segment() {
    return segment;
  }

  /** Of so many bytes at an offset; kernels read and write them there too, over the bus. */
  public long address(long offset, long length) {
    Objects.checkFromIndexSize(offset, length, segment.byteSize());
    return segment.address() + offset;
  }

  @Override
  public void close() {
    CudaException.check(JCudaDriver.cuMemFreeHost(pointer), "cuMemFreeHost");
  }
}
