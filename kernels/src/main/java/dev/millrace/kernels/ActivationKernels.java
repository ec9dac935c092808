package dev.millrace.kernels;

import java.util.EnumMap;
import java.util.Map;
import jcuda.Pointer;
import jcuda.driver.CUdeviceptr;
import jcuda.driver.CUstream;
import org.jspecify.annotations.Nullable;

/**
 * Launchers of {@code activation.cu}. Loaded into the current context by whoever closes it.
 * Launches return before the kernels ran; the stream orders them, null for the default one.
 */
public final class ActivationKernels implements AutoCloseable {
  private static final int THREADS = 256;

  /** Enough to fill any GPU of today; a block takes more than one stretch of a larger tensor. */
  private static final int MAX_BLOCKS = 4096;

  private final KernelModule module = KernelModule.load("activation");
  private final Map<ElementType, KernelModule.Kernel> siluMul = new EnumMap<>(ElementType.class);

  /**
   * Loads the kernels.
   *
   * @throws CudaException if this build has none, or the driver refuses them
   */
  public ActivationKernels() {
    for (ElementType type : ElementType.values()) {
      siluMul.put(type, module.kernel(type.variant("silu_mul")));
    }
  }

  /**
   * out = silu(gate) · up, computed in float.
   *
   * @param gate as many elements as the shape has
   * @param up as many elements as the shape has
   * @param out may be gate or up
   */
  public void siluMul(
      ElementType type,
      CUdeviceptr gate,
      CUdeviceptr up,
      CUdeviceptr out,
      Shape shape,
      @Nullable CUstream stream) {
    KernelModule.Kernel kernel = siluMul.get(type);
    if (kernel == null) {
      throw new IllegalArgumentException("no kernel for " + type);
    }
    kernel.launch(
        blocks(shape.count()),
        THREADS,
        stream,
        Pointer.to(gate),
        Pointer.to(up),
        Pointer.to(out),
        Pointer.to(new long[] {shape.count()}));
  }

  static int blocks(long count) {
    return (int) Math.min((count + THREADS - 1) / THREADS, MAX_BLOCKS);
  }

  @Override
  public void close() {
    module.close();
  }
}
