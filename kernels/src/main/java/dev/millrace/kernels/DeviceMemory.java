package dev.millrace.kernels;

import jcuda.driver.CUdeviceptr;
import jcuda.driver.JCudaDriver;

/**
 * One block of a GPU's memory. Addresses are plain numbers that the kernels' launchers take.
 * Whoever allocates it frees it by closing.
 */
public final class DeviceMemory implements AutoCloseable {
  /** JCuda shows its pointers to subclasses alone. */
  private static final class Handle extends CUdeviceptr {
    long address() {
      return getNativePointer();
    }
  }

  private final StreamCalls calls = StreamCalls.installed();
  private final Handle handle = new Handle();
  private final long bytes;

  /** In the current context; holds anything. */
  public DeviceMemory(long bytes) {
    this.bytes = bytes;
    CudaException.check(JCudaDriver.cuMemAlloc(handle, bytes), "cuMemAlloc", bytes + " bytes");
  }

  public long address() {
    return handle.address();
  }

  public long bytes() {
    return bytes;
  }

  /** Copies to {@code address} in this block; the pinned memory may change once this is done. */
  public void upload(long address, PinnedMemory from, long offset, long length, Stream stream) {
    check(address, length);
    calls.upload(address, from.address(offset, length), length, stream);
  }

  /** Copies from {@code address} in this block. */
  public void download(long address, PinnedMemory to, long offset, long length, Stream stream) {
    check(address, length);
    calls.download(to.address(offset, length), address, length, stream);
  }

  /** Copies from one place of this block to another; they do not overlap. */
  public void copy(long to, long from, long length, Stream stream) {
    CudaException.check(
        JCudaDriver.cuMemcpyDtoDAsync(at(to, length), at(from, length), length, stream.handle()),
        "cuMemcpyDtoDAsync",
        length + " bytes");
  }

  /** Fills with one byte. */
  public void fill(long address, int value, long length, Stream stream) {
    CudaException.check(
        JCudaDriver.cuMemsetD8Async(at(address, length), (byte) value, length, stream.handle()),
        "cuMemsetD8Async",
        length + " bytes");
  }

  private CUdeviceptr at(long address, long length) {
    return handle.withByteOffset(check(address, length));
  }

  /** The offset of an address in this block. */
  private long check(long address, long length) {
    long offset = address - handle.address();
    if (offset < 0 || length < 0 || offset + length > bytes) {
      throw new IndexOutOfBoundsException(
          length + " bytes at " + offset + " of a block of " + bytes + " bytes");
    }
    return offset;
  }

  @Override
  public void close() {
    CudaException.check(JCudaDriver.cuMemFree(handle), "cuMemFree");
  }
}
