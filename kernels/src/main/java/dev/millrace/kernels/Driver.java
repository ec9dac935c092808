package dev.millrace.kernels;

import static java.lang.foreign.ValueLayout.ADDRESS;
import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SymbolLookup;
import java.lang.invoke.MethodHandle;

/**
 * The driver's functions that load and launch kernels, through Java's foreign-function API: a
 * launch so costs half of what it does through JCuda, and leaves no garbage. The contexts are
 * JCuda's.
 */
final class Driver {
  private static final String LIBRARY = "libcuda.so.1";
  private static final String NAME = "the CUDA driver";

  private final MethodHandle loadData;
  private final MethodHandle unload;
  private final MethodHandle getFunction;
  private final MethodHandle setAttribute;
  private final MethodHandle getAttribute;
  private final MethodHandle occupancy;
  private final MethodHandle launch;
  private final MethodHandle launchEx;

  private static final class Holder {
    static final SymbolLookup LOOKUP = found();
    static final Driver INSTALLED = new Driver(LOOKUP);

    private static SymbolLookup found() {
      try {
        return SymbolLookup.libraryLookup(LIBRARY, Arena.global());
      } catch (IllegalArgumentException e) {
        throw new CudaException(
            LIBRARY + " was not found: install NVIDIA's driver, or use the CPU backend", e);
      }
    }
  }

  /** The one of this machine. */
  static Driver installed() {
    return Holder.INSTALLED;
  }

  /** Its functions, for what not every use of a GPU needs. */
  static Natives natives() {
    return new Natives(NAME, Holder.LOOKUP);
  }

  /**
   * @param library where the functions are
   */
  Driver(SymbolLookup library) {
    Natives natives = new Natives(NAME, library);
    this.loadData = natives.function("cuModuleLoadData", ADDRESS, ADDRESS);
    this.unload = natives.function("cuModuleUnload", JAVA_LONG);
    this.getFunction = natives.function("cuModuleGetFunction", ADDRESS, JAVA_LONG, ADDRESS);
    this.setAttribute = natives.function("cuFuncSetAttribute", JAVA_LONG, JAVA_INT, JAVA_INT);
    this.getAttribute = natives.function("cuFuncGetAttribute", ADDRESS, JAVA_INT, JAVA_LONG);
    this.occupancy =
        natives.function(
            "cuOccupancyMaxActiveBlocksPerMultiprocessor",
            ADDRESS, // blocks
            JAVA_LONG, // function
            JAVA_INT, // threads
            JAVA_LONG); // bytes of dynamic shared memory
    this.launchEx =
        natives.function(
            "cuLaunchKernelEx",
            ADDRESS, // configuration
            JAVA_LONG, // function
            ADDRESS, // parameters
            ADDRESS); // extra
    this.launch =
        natives.function(
            "cuLaunchKernel",
            JAVA_LONG, // function
            JAVA_INT, // grid
            JAVA_INT,
            JAVA_INT,
            JAVA_INT, // block
            JAVA_INT,
            JAVA_INT,
            JAVA_INT, // bytes of dynamic shared memory
            JAVA_LONG, // stream
            ADDRESS, // parameters
            ADDRESS); // extra
  }

  /** A module's handle. */
  long load(String name, byte[] fatbin) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment image = arena.allocate(fatbin.length, 64);
      MemorySegment.copy(fatbin, 0, image, JAVA_BYTE, 0, fatbin.length);
      MemorySegment module = arena.allocate(JAVA_LONG);
      check((int) loadData.invokeExact(module, image), "cuModuleLoadData", name + ".fatbin");
      return module.get(JAVA_LONG, 0);
    } catch (Throwable e) {
      throw Natives.unchecked(e);
    }
  }

  void unload(String name, long module) {
    try {
      check((int) unload.invokeExact(module), "cuModuleUnload", name + ".fatbin");
    } catch (Throwable e) {
      throw Natives.unchecked(e);
    }
  }

  /** A function's handle. */
  long function(String name, long module, String function) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment handle = arena.allocate(JAVA_LONG);
      check(
          (int) getFunction.invokeExact(handle, module, arena.allocateFrom(function)),
          "cuModuleGetFunction",
          name + ".fatbin",
          function);
      return handle.get(JAVA_LONG, 0);
    } catch (Throwable e) {
      throw Natives.unchecked(e);
    }
  }

  /** Whether what was loaded for this card has a function. */
  boolean has(String name, long module, String function) {
    final int notFound = 500;
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment handle = arena.allocate(JAVA_LONG);
      int result = (int) getFunction.invokeExact(handle, module, arena.allocateFrom(function));
      if (result != notFound) {
        check(result, "cuModuleGetFunction", name + ".fatbin", function);
      }
      return result != notFound;
    } catch (Throwable e) {
      throw Natives.unchecked(e);
    }
  }

  /** Lets a function have more dynamic shared memory than the 48 KB that each may have. */
  void allowShared(String name, long function, int bytes) {
    final int maxDynamicSharedSize = 8;
    try {
      check(
          (int) setAttribute.invokeExact(function, maxDynamicSharedSize, bytes),
          "cuFuncSetAttribute",
          name,
          "max dynamic shared size",
          bytes);
    } catch (Throwable e) {
      throw Natives.unchecked(e);
    }
  }

  /** The virtual architecture that a function was compiled for, 90 for compute_90a. */
  int architecture(String name, long function) {
    final int ptxVersion = 5;
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment value = arena.allocate(JAVA_INT);
      check(
          (int) getAttribute.invokeExact(value, ptxVersion, function),
          "cuFuncGetAttribute",
          name,
          "PTX version");
      return value.get(JAVA_INT, 0);
    } catch (Throwable e) {
      throw Natives.unchecked(e);
    }
  }

  /** Blocks of a function that a multiprocessor runs at once. */
  int blocksAtOnce(String name, long function, int threads, long sharedBytes) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment value = arena.allocate(JAVA_INT);
      check(
          (int) occupancy.invokeExact(value, function, threads, sharedBytes),
          "cuOccupancyMaxActiveBlocksPerMultiprocessor",
          name,
          threads + " threads",
          sharedBytes + " bytes of shared memory");
      return value.get(JAVA_INT, 0);
    } catch (Throwable e) {
      throw Natives.unchecked(e);
    }
  }

  /** As {@link #launch}, as a {@link LaunchConfig} says. */
  int launch(LaunchConfig config, long function, MemorySegment parameters) {
    try {
      return (int) launchEx.invokeExact(config.segment(), function, parameters, MemorySegment.NULL);
    } catch (Throwable e) {
      throw Natives.unchecked(e);
    }
  }

  /**
   * Returns before the kernel ran. The result is the driver's code: the caller knows what it was.
   */
  int launch(
      long function,
      int gridX,
      int gridY,
      int threads,
      int sharedBytes,
      long stream,
      MemorySegment parameters) {
    try {
      return (int)
          launch.invokeExact(
              function,
              gridX,
              gridY,
              1,
              threads,
              1,
              1,
              sharedBytes,
              stream,
              parameters,
              MemorySegment.NULL);
    } catch (Throwable e) {
      throw Natives.unchecked(e);
    }
  }

  private static void check(int result, String call, Object... arguments) {
    CudaException.check(result, call, arguments);
  }
}
