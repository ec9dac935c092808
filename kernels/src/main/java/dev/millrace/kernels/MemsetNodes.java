package dev.millrace.kernels;

import static java.lang.foreign.ValueLayout.ADDRESS;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.invoke.MethodHandle;
import java.util.Arrays;

/**
 * Puts a kernel in the place of each memset of a graph that is being recorded. The driver launches
 * any number of kernels in a row within some 10 µs, and takes ten times as long where there are
 * memsets among them; some products of the library's begin with one of four bytes. Loaded into the
 * current context by whoever closes it, after the graphs.
 */
public final class MemsetNodes implements AutoCloseable {
  private static final int THREADS = 256;
  private static final int MOST_BLOCKS = 4096;

  /** Of the driver's kinds of nodes. */
  private static final int MEMSET = 2;

  /** Edges say more than these functions tell: a kernel begins before the one before has ended. */
  private static final int LOSSY_QUERY = 402;

  // Bytes of the driver's structures, and where their fields are.
  private static final long PARAMS_BYTES = 64;
  private static final long VALUE_AT = 16;
  private static final long ELEMENT_AT = 20;
  private static final long WIDTH_AT = 24;
  private static final long HEIGHT_AT = 32;
  private static final long BLOCKS_AT = 8;
  private static final long THREADS_AT = 20;
  private static final long ARGUMENTS_AT = 40;

  private final KernelModule module = KernelModule.load("fill");
  private final long fill = module.kernel("fill_bytes").handle();
  private final MethodHandle nodes;
  private final MethodHandle type;
  private final MethodHandle memset;
  private final MethodHandle before;
  private final MethodHandle after;
  private final MethodHandle addKernel;
  private final MethodHandle addEdges;
  private final MethodHandle destroy;
  private long replaced;

  /** With the driver of this machine. */
  public MemsetNodes() {
    Natives n = Driver.natives();
    this.nodes = n.function("cuGraphGetNodes", JAVA_LONG, ADDRESS, ADDRESS);
    this.type = n.function("cuGraphNodeGetType", JAVA_LONG, ADDRESS);
    this.memset = n.function("cuGraphMemsetNodeGetParams", JAVA_LONG, ADDRESS);
    this.before = n.function("cuGraphNodeGetDependencies", JAVA_LONG, ADDRESS, ADDRESS);
    this.after = n.function("cuGraphNodeGetDependentNodes", JAVA_LONG, ADDRESS, ADDRESS);
    this.addKernel =
        n.function("cuGraphAddKernelNode", ADDRESS, JAVA_LONG, ADDRESS, JAVA_LONG, ADDRESS);
    this.addEdges = n.function("cuGraphAddDependencies", JAVA_LONG, ADDRESS, ADDRESS, JAVA_LONG);
    this.destroy = n.function("cuGraphDestroyNode", JAVA_LONG);
  }

  /** Replaces those of a graph that has not been made executable. */
  void replace(long graph) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment kind = arena.allocate(JAVA_LONG);
      for (long node : list(nodes, "cuGraphGetNodes", graph, arena)) {
        check(() -> (int) type.invokeExact(node, kind), "cuGraphNodeGetType");
        if (kind.get(JAVA_INT, 0) == MEMSET && replace(graph, node, arena)) {
          replaced++;
        }
      }
    }
  }

  /** How many it has replaced. */
  public long replaced() {
    return replaced;
  }

  /** Leaves it where it is more than a stretch of bytes. */
  private boolean replace(long graph, long node, Arena arena) {
    MemorySegment params = arena.allocate(PARAMS_BYTES, Long.BYTES);
    check(() -> (int) memset.invokeExact(node, params), "cuGraphMemsetNodeGetParams");
    int value = params.get(JAVA_INT, VALUE_AT);
    int element = params.get(JAVA_INT, ELEMENT_AT);
    boolean bytes = element == 1 || value == 0;
    if (params.get(JAVA_LONG, HEIGHT_AT) != 1 || !bytes) {
      return false;
    }
    MemorySegment unused = arena.allocate(JAVA_LONG);
    if (lossy(before, node, unused) || lossy(after, node, unused)) {
      return false;
    }
    long[] earlier = list(before, "cuGraphNodeGetDependencies", node, arena);
    long[] later = list(after, "cuGraphNodeGetDependentNodes", node, arena);
    long count = params.get(JAVA_LONG, WIDTH_AT) * element;
    MemorySegment added = arena.allocate(JAVA_LONG);
    MemorySegment kernel = kernel(params.get(JAVA_LONG, 0), value, count, arena);
    MemorySegment from = array(earlier, arena);
    check(
        () -> (int) addKernel.invokeExact(added, graph, from, (long) earlier.length, kernel),
        "cuGraphAddKernelNode");
    long[] self = new long[later.length];
    Arrays.fill(self, added.get(JAVA_LONG, 0));
    MemorySegment selves = array(self, arena);
    MemorySegment to = array(later, arena);
    check(
        () -> (int) addEdges.invokeExact(graph, selves, to, (long) later.length),
        "cuGraphAddDependencies");
    check(() -> (int) destroy.invokeExact(node), "cuGraphDestroyNode");
    return true;
  }

  private static boolean lossy(MethodHandle function, long node, MemorySegment count) {
    return Graph.status(() -> (int) function.invokeExact(node, MemorySegment.NULL, count))
        == LOSSY_QUERY;
  }

  /** The driver's description of the kernel, with its arguments, which it copies. */
  private MemorySegment kernel(long address, int value, long count, Arena arena) {
    MemorySegment arguments = arena.allocate(ADDRESS, 3);
    arguments.setAtIndex(ADDRESS, 0, arena.allocateFrom(JAVA_LONG, address));
    arguments.setAtIndex(ADDRESS, 1, arena.allocateFrom(JAVA_INT, value));
    arguments.setAtIndex(ADDRESS, 2, arena.allocateFrom(JAVA_LONG, count));
    MemorySegment kernel = arena.allocate(PARAMS_BYTES, Long.BYTES);
    kernel.set(JAVA_LONG, 0, fill);
    int blocks = (int) Math.clamp(Math.ceilDiv(count, THREADS), 1, MOST_BLOCKS);
    MemorySegment.copy(new int[] {blocks, 1, 1}, 0, kernel, JAVA_INT, BLOCKS_AT, 3);
    MemorySegment.copy(new int[] {THREADS, 1, 1}, 0, kernel, JAVA_INT, THREADS_AT, 3);
    kernel.set(ADDRESS, ARGUMENTS_AT, arguments);
    return kernel;
  }

  /** What a function tells of a graph or a node: first how many there are, then which. */
  private static long[] list(MethodHandle function, String name, long of, Arena arena) {
    MemorySegment count = arena.allocate(JAVA_LONG);
    check(() -> (int) function.invokeExact(of, MemorySegment.NULL, count), name);
    int length = Math.toIntExact(count.get(JAVA_LONG, 0));
    MemorySegment all = arena.allocate(JAVA_LONG, Math.max(1, length));
    if (length > 0) {
      check(() -> (int) function.invokeExact(of, all, count), name);
    }
    return all.asSlice(0, (long) length * Long.BYTES).toArray(JAVA_LONG);
  }

  private static MemorySegment array(long[] handles, Arena arena) {
    return handles.length == 0 ? MemorySegment.NULL : arena.allocateFrom(JAVA_LONG, handles);
  }

  private static void check(Graph.Call call, String what) {
    CudaException.check(Graph.status(call), what);
  }

  @Override
  public void close() {
    module.close();
  }
}
