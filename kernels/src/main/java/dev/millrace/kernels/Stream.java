package dev.millrace.kernels;

import jcuda.driver.CUstream;
import jcuda.driver.CUstream_flags;
import jcuda.driver.JCudaDriver;

/** Work that a GPU does in the order it was given. Whoever makes it closes it. */
public final class Stream implements AutoCloseable {
  /** JCuda shows its pointers to subclasses alone. */
  private static final class Handle extends CUstream {
    long address() {
      return getNativePointer();
    }
  }

  private final Handle handle = new Handle();

  /** In the current context; does not wait for the default stream. */
  public Stream() {
    CudaException.check(
        JCudaDriver.cuStreamCreate(handle, CUstream_flags.CU_STREAM_NON_BLOCKING),
        "cuStreamCreate");
  }

  CUstream handle() {
    return handle;
  }

  /** As the driver's and its libraries' functions take it. */
  long address() {
    return handle.address();
  }

  /** Waits until everything given so far is done. */
  public void synchronize() {
    CudaException.check(JCudaDriver.cuStreamSynchronize(handle), "cuStreamSynchronize");
  }

  @Override
  public void close() {
    CudaException.check(JCudaDriver.cuStreamDestroy(handle), "cuStreamDestroy");
  }
}
