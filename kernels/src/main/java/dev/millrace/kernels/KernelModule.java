package dev.millrace.kernels;

import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import org.jspecify.annotations.Nullable;

/**
 * The kernels of one {@code .cu} file, loaded into the current context. Whoever loads it closes it,
 * while that context is current.
 */
final class KernelModule implements AutoCloseable {
  /** From here on {@code overlap.cuh} has instructions for it. */
  private static final int OVERLAPPING_ARCHITECTURE = 90;

  private final String name;
  private final Driver driver;
  private final long module;

  private KernelModule(String name, Driver driver) {
    this.name = name;
    this.driver = driver;
    this.module = driver.load(name, fatbin(name));
  }

  /**
   * Loads the kernels of {@code cuda/NAME.cu}.
   *
   * @throws CudaException if this build has no kernels, or the driver refuses them
   */
  static KernelModule load(String name) {
    return new KernelModule(name, Driver.installed());
  }

  /** The compiled kernels, as nvcc wrote them. */
  static byte[] fatbin(String name) {
    try (InputStream in = KernelModule.class.getResourceAsStream(name + ".fatbin")) {
      if (in == null) {
        throw new CudaException(
            "the kernels of "
                + name
                + ".cu are not in this build: nvcc was not found when it was made. Install the CUDA"
                + " toolkit, 12.4 or newer, put nvcc on the PATH or set CUDA_HOME, and build again;"
                + " or use the CPU backend");
      }
      return in.readAllBytes();
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  /** A kernel of this module. */
  Kernel kernel(String function) {
    return new Kernel(driver, function, driver.function(name, module, function), null);
  }

  /**
   * A kernel of this module that calls {@code await_previous} of {@code overlap.cuh} before it
   * touches what kernels that may still run do: where its code does so, it may be set up while the
   * kernel before it runs.
   */
  Kernel overlapping(String function) {
    long handle = driver.function(name, module, function);
    // Code of older architectures, which newer GPUs take too, does not wait.
    boolean waits = driver.architecture(function, handle) >= OVERLAPPING_ARCHITECTURE;
    return new Kernel(
        driver, function, handle, waits ? new LaunchConfig(LaunchConfig.Way.OVERLAPPING) : null);
  }

  /** A kernel that the code for some cards has; null where this card's has not. */
  @Nullable Kernel find(String function) {
    return driver.has(name, module, function) ? kernel(function) : null;
  }

  /** As {@link #find}, of a kernel that is {@link #overlapping} wherever there is one. */
  @Nullable Kernel findOverlapping(String function) {
    return find(function, LaunchConfig.Way.OVERLAPPING);
  }

  /** As {@link #find}, of a kernel all of whose blocks run at once. */
  @Nullable Kernel findTogether(String function) {
    return find(function, LaunchConfig.Way.TOGETHER);
  }

  /** As {@link #find}, of a kernel that is overlapping, and whose blocks run in clusters. */
  @Nullable Kernel findClusters(String function) {
    return find(function, LaunchConfig.Way.CLUSTERS, LaunchConfig.Way.OVERLAPPING);
  }

  private @Nullable Kernel find(String function, LaunchConfig.Way... ways) {
    return driver.has(name, module, function)
        ? new Kernel(
            driver, function, driver.function(name, module, function), new LaunchConfig(ways))
        : null;
  }

  @Override
  public void close() {
    driver.unload(name, module);
  }

  /**
   * A function on the device. Its arguments are named one after another, then it is launched; one
   * thread at a time.
   */
  static final class Kernel {
    private static final int MOST_ARGUMENTS = 32;

    /**
     * The driver wants to be asked beyond 48 KB, of which what a kernel has of its own is taken: of
     * these it has less than the difference.
     */
    private static final int FREE_SHARED = 40 << 10;

    private final Driver driver;
    private final String name;
    private final long function;
    private final MemorySegment values;
    private final MemorySegment parameters;
    // Null: it begins when the kernel before has ended, and its blocks one after another.
    private final @Nullable LaunchConfig config;
    private int count;
    private int allowedShared = FREE_SHARED;

    Kernel(Driver driver, String name, long function, @Nullable LaunchConfig config) {
      this.driver = driver;
      this.config = config;
      this.name = name;
      this.function = function;
      Arena arena = Arena.ofAuto();
      this.values = arena.allocate(ValueLayout.JAVA_LONG, MOST_ARGUMENTS);
      this.parameters = arena.allocate(ValueLayout.ADDRESS, MOST_ARGUMENTS);
      for (int i = 0; i < MOST_ARGUMENTS; i++) {
        parameters.setAtIndex(ValueLayout.ADDRESS, i, values.asSlice(i * 8L));
      }
    }

    /** As the driver's functions take it. */
    long handle() {
      return function;
    }

    /** A pointer or a 64-bit number. */
    Kernel with(long value) {
      values.setAtIndex(ValueLayout.JAVA_LONG, count++, value);
      return this;
    }

    /** Of a size that the kernel knows; not looked at until the launch. */
    Kernel with(MemorySegment value) {
      values.setAtIndex(ValueLayout.JAVA_LONG, count, value.address());
      parameters.setAtIndex(ValueLayout.ADDRESS, count++, value);
      return this;
    }

    Kernel with(int value) {
      values.set(ValueLayout.JAVA_INT, 8L * count++, value);
      return this;
    }

    Kernel with(float value) {
      values.set(ValueLayout.JAVA_FLOAT, 8L * count++, value);
      return this;
    }

    Kernel with(double value) {
      values.set(ValueLayout.JAVA_DOUBLE, 8L * count++, value);
      return this;
    }

    /** Blocks that a multiprocessor runs at once. */
    int blocksAtOnce(int threads, int sharedBytes) {
      allow(sharedBytes);
      return driver.blocksAtOnce(name, function, threads, sharedBytes);
    }

    /** Of a kernel in clusters: how many blocks each has from here on. */
    Kernel inClustersOf(int blocks) {
      if (config == null) {
        throw new IllegalStateException(name + " is not launched in clusters");
      }
      config.clusters(blocks);
      return this;
    }

    private void allow(int sharedBytes) {
      if (sharedBytes > allowedShared) {
        driver.allowShared(name, function, sharedBytes);
        allowedShared = sharedBytes;
      }
    }

    /** Launches it in one dimension; returns before it ran. */
    void launch(int blocks, int threads, Stream stream) {
      launch(blocks, 1, threads, 0, stream);
    }

    /** Launches it with dynamic shared memory; returns before it ran. */
    void launch(int blocksX, int blocksY, int threads, int sharedBytes, Stream stream) {
      int arguments = count;
      count = 0;
      allow(sharedBytes);
      long queue = stream.address();
      int result =
          config == null
              ? driver.launch(function, blocksX, blocksY, threads, sharedBytes, queue, parameters)
              : driver.launch(
                  config.of(blocksX, blocksY, threads, sharedBytes, queue), function, parameters);
      if (result != 0) {
        CudaException.check(
            result,
            config == null ? "cuLaunchKernel" : "cuLaunchKernelEx",
            name,
            blocksX + " x " + blocksY + " blocks",
            threads + " threads",
            sharedBytes + " bytes of shared memory",
            "arguments " + shown(arguments));
      }
    }

    private String shown(int arguments) {
      StringBuilder shown = new StringBuilder();
      for (int i = 0; i < arguments; i++) {
        shown.append(i == 0 ? "0x" : " 0x");
        shown.append(Long.toHexString(values.getAtIndex(ValueLayout.JAVA_LONG, i)));
      }
      return shown.toString();
    }
  }
}
