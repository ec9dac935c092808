package dev.millrace.kernels;

import jcuda.driver.CUevent;
import jcuda.driver.CUevent_flags;
import jcuda.driver.JCudaDriver;

/** A point in a {@link Stream}. Whoever makes it closes it. */
public final class Event implements AutoCloseable {
  /** JCuda shows its pointers to subclasses alone. */
  private static final class Handle extends CUevent {
    long address() {
      return getNativePointer();
    }
  }

  private final StreamCalls calls = StreamCalls.installed();
  private final Handle handle = new Handle();

  private Event(int flags) {
    CudaException.check(JCudaDriver.cuEventCreate(handle, flags), "cuEventCreate", flags);
  }

  /** To wait for; waiting costs no processor time. */
  public static Event blocking() {
    return new Event(CUevent_flags.CU_EVENT_BLOCKING_SYNC | CUevent_flags.CU_EVENT_DISABLE_TIMING);
  }

  /** To wait for with the least delay: the thread that waits keeps its processor busy. */
  public static Event spinning() {
    return new Event(CUevent_flags.CU_EVENT_DISABLE_TIMING);
  }

  /** As {@link #spinning}, and to measure by. */
  public static Event timing() {
    return new Event(CUevent_flags.CU_EVENT_DEFAULT);
  }

  /** Moves the point to after everything that the stream was given so far. */
  public void record(Stream stream) {
    calls.recordEvent(handle.address(), stream);
  }

  /** Waits until the stream got there; returns at once where nothing was recorded. */
  public void synchronize() {
    calls.awaitEvent(handle.address());
  }

  /** Milliseconds from this point to a later one; both timing events that were waited for. */
  public float millisTo(Event later) {
    float[] millis = new float[1];
    CudaException.check(
        JCudaDriver.cuEventElapsedTime(millis, handle, later.handle), "cuEventElapsedTime");
    return millis[0];
  }

  @Override
  public void close() {
    CudaException.check(JCudaDriver.cuEventDestroy(handle), "cuEventDestroy");
  }
}
