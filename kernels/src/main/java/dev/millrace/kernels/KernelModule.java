package dev.millrace.kernels;

import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.util.Arrays;
import jcuda.Pointer;
import jcuda.driver.CUfunction;
import jcuda.driver.CUmodule;
import jcuda.driver.CUstream;
import jcuda.driver.JCudaDriver;
import org.jspecify.annotations.Nullable;

/**
 * The kernels of one {@code .cu} file, loaded into the current context. Whoever loads it closes it,
 * while that context is current.
 */
final class KernelModule implements AutoCloseable {
  private final String name;
  private final CUmodule module = new CUmodule();

  private KernelModule(String name) {
    this.name = name;
  }

  /**
   * Loads the kernels of {@code cuda/NAME.cu}.
   *
   * @throws CudaException if this build has no kernels, or the driver refuses them
   */
  static KernelModule load(String name) {
    byte[] fatbin = fatbin(name);
    KernelModule loaded = new KernelModule(name);
    CudaException.check(
        JCudaDriver.cuModuleLoadData(loaded.module, fatbin),
        "cuModuleLoadData",
        name + ".fatbin",
        fatbin.length + " bytes");
    return loaded;
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
    CUfunction found = new CUfunction();
    CudaException.check(
        JCudaDriver.cuModuleGetFunction(found, module, function),
        "cuModuleGetFunction",
        name + ".fatbin",
        function);
    return new Kernel(function, found);
  }

  /** A function on the device. */
  record Kernel(String name, CUfunction function) {

    /** Launches it in one dimension; returns before it ran. */
    void launch(int blocks, int threads, @Nullable CUstream stream, Pointer... arguments) {
      CudaException.check(
          JCudaDriver.cuLaunchKernel(
              function, blocks, 1, 1, threads, 1, 1, 0, stream, Pointer.to(arguments), null),
          "cuLaunchKernel",
          name,
          blocks + " blocks",
          threads + " threads",
          Arrays.toString(arguments));
    }
  }

  @Override
  public void close() {
    CudaException.check(JCudaDriver.cuModuleUnload(module), "cuModuleUnload", name + ".fatbin");
  }
}
