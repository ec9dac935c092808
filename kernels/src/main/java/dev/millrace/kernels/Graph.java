package dev.millrace.kernels;

import static java.lang.foreign.ValueLayout.ADDRESS;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.invoke.MethodHandle;

/**
 * Work for a GPU that was recorded once and is launched whole, as often as wanted: one call instead
 * of hundreds, and less time between its kernels. Addresses and numbers that kernels were given are
 * those of the recording; what lies at the addresses may change. Whoever records it closes it,
 * while the context is current.
 */
public final class Graph implements AutoCloseable {
  /** Nothing that other threads, or libraries on this one, do meanwhile is refused. */
  private static final int CAPTURE_MODE_RELAXED = 2;

  private final Functions f;
  private final long executable;

  /** The driver's functions, there from CUDA 12 on. */
  private static final class Functions {
    static final Functions INSTALLED = new Functions(Driver.natives());

    final MethodHandle begin;
    final MethodHandle end;
    final MethodHandle instantiate;
    final MethodHandle upload;
    final MethodHandle launch;
    final MethodHandle destroy;
    final MethodHandle destroyExecutable;

    Functions(Natives n) {
      this.begin = n.function("cuStreamBeginCapture_v2", JAVA_LONG, JAVA_INT);
      this.end = n.function("cuStreamEndCapture", JAVA_LONG, ADDRESS);
      this.instantiate = n.function("cuGraphInstantiateWithFlags", ADDRESS, JAVA_LONG, JAVA_LONG);
      this.upload = n.function("cuGraphUpload", JAVA_LONG, JAVA_LONG);
      this.launch = n.function("cuGraphLaunch", JAVA_LONG, JAVA_LONG);
      this.destroy = n.function("cuGraphDestroy", JAVA_LONG);
      this.destroyExecutable = n.function("cuGraphExecDestroy", JAVA_LONG);
    }
  }

  private Graph(Functions f, long executable) {
    this.f = f;
    this.executable = executable;
  }

  /**
   * Records what {@code work} gives to a stream; none of it runs.
   *
   * @param work kernels and products alone; it waits for nothing and copies nothing to or from the
   *     host
   * @param memsets what comes in the place of memsets among it
   * @throws CudaException if the driver cannot; the stream works on as before then
   */
  public static Graph record(Stream stream, MemsetNodes memsets, Runnable work) {
    Functions f = Functions.INSTALLED;
    check(
        "cuStreamBeginCapture",
        () -> (int) f.begin.invokeExact(stream.address(), CAPTURE_MODE_RELAXED));
    boolean done = false;
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment handle = arena.allocate(JAVA_LONG);
      try {
        work.run();
        done = true;
      } finally {
        int result = status(() -> (int) f.end.invokeExact(stream.address(), handle));
        // What the work itself threw says more than that its recording did not come about.
        if (done) {
          CudaException.check(result, "cuStreamEndCapture");
        } else if (result == 0) {
          long part = handle.get(JAVA_LONG, 0);
          int unused = status(() -> (int) f.destroy.invokeExact(part));
        }
      }
      long graph = handle.get(JAVA_LONG, 0);
      try {
        memsets.replace(graph);
        check("cuGraphInstantiate", () -> (int) f.instantiate.invokeExact(handle, graph, 0L));
      } finally {
        check("cuGraphDestroy", () -> (int) f.destroy.invokeExact(graph));
      }
      Graph recorded = new Graph(f, handle.get(JAVA_LONG, 0));
      int uploaded =
          status(() -> (int) f.upload.invokeExact(recorded.executable, stream.address()));
      if (uploaded != 0) {
        recorded.close();
      }
      CudaException.check(uploaded, "cuGraphUpload");
      return recorded;
    }
  }

  /** Gives all of it to a stream; returns before it ran. */
  public void launch(Stream stream) {
    check("cuGraphLaunch", () -> (int) f.launch.invokeExact(executable, stream.address()));
  }

  @Override
  public void close() {
    check("cuGraphExecDestroy", () -> (int) f.destroyExecutable.invokeExact(executable));
  }

  interface Call {
    @SuppressWarnings("checkstyle:IllegalThrows") // what a method handle declares
    int run() throws Throwable;
  }

  private static void check(String what, Call call) {
    CudaException.check(status(call), what);
  }

  static int status(Call call) {
    try {
      return call.run();
    } catch (Throwable e) {
      throw Natives.unchecked(e);
    }
  }
}
