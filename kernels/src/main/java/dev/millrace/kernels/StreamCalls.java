package dev.millrace.kernels;

import static java.lang.foreign.ValueLayout.JAVA_LONG;

import java.lang.invoke.MethodHandle;

/**
 * The driver's functions that every step calls, through Java's foreign-function API: JCuda looks up
 * fields of its objects by name in each call.
 */
final class StreamCalls {
  private final MethodHandle setCurrent;
  private final MethodHandle upload;
  private final MethodHandle download;
  private final MethodHandle recordEvent;
  private final MethodHandle awaitEvent;

  private static final class Holder {
    static final StreamCalls INSTALLED = new StreamCalls(Driver.natives());
  }

  /** Of the driver of this machine. */
  static StreamCalls installed() {
    return Holder.INSTALLED;
  }

  private StreamCalls(Natives n) {
    this.setCurrent = n.function("cuCtxSetCurrent", JAVA_LONG);
    this.upload = n.function("cuMemcpyHtoDAsync_v2", JAVA_LONG, JAVA_LONG, JAVA_LONG, JAVA_LONG);
    this.download = n.function("cuMemcpyDtoHAsync_v2", JAVA_LONG, JAVA_LONG, JAVA_LONG, JAVA_LONG);
    this.recordEvent = n.function("cuEventRecord", JAVA_LONG, JAVA_LONG);
    this.awaitEvent = n.function("cuEventSynchronize", JAVA_LONG);
  }

  void setCurrent(long context, int ordinal) {
    try {
      int result = (int) setCurrent.invokeExact(context);
      if (result != 0) {
        CudaException.check(result, "cuCtxSetCurrent", "device " + ordinal);
      }
    } catch (Throwable e) {
      throw Natives.unchecked(e);
    }
  }

  /** From pinned memory of the host. */
  void upload(long to, long from, long bytes, Stream stream) {
    try {
      int result = (int) upload.invokeExact(to, from, bytes, stream.address());
      if (result != 0) {
        CudaException.check(result, "cuMemcpyHtoDAsync", bytes + " bytes");
      }
    } catch (Throwable e) {
      throw Natives.unchecked(e);
    }
  }

  /** To pinned memory of the host. */
  void download(long to, long from, long bytes, Stream stream) {
    try {
      int result = (int) download.invokeExact(to, from, bytes, stream.address());
      if (result != 0) {
        CudaException.check(result, "cuMemcpyDtoHAsync", bytes + " bytes");
      }
    } catch (Throwable e) {
      throw Natives.unchecked(e);
    }
  }

  void recordEvent(long event, Stream stream) {
    try {
      CudaException.check((int) recordEvent.invokeExact(event, stream.address()), "cuEventRecord");
    } catch (Throwable e) {
      throw Natives.unchecked(e);
    }
  }

  void awaitEvent(long event) {
    try {
      CudaException.check((int) awaitEvent.invokeExact(event), "cuEventSynchronize");
    } catch (Throwable e) {
      throw Natives.unchecked(e);
    }
  }
}
