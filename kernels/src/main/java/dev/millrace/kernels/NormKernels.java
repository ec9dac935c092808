package dev.millrace.kernels;

import java.util.EnumMap;
import java.util.Map;
import jcuda.Pointer;
import jcuda.driver.CUdeviceptr;
import jcuda.driver.CUstream;
import org.jspecify.annotations.Nullable;

/**
 * Launchers of {@code norm.cu}. Loaded into the current context by whoever closes it. Launches
 * return before the kernels ran; the stream orders them, null for the default one.
 */
public final class NormKernels implements AutoCloseable {
  private static final int THREADS = 256;

  private final KernelModule module = KernelModule.load("norm");
  private final Map<ElementType, KernelModule.Kernel> rmsNorm = new EnumMap<>(ElementType.class);
  private final Map<ElementType, KernelModule.Kernel> addRmsNorm = new EnumMap<>(ElementType.class);

  /**
   * Loads the kernels.
   *
   * @throws CudaException if this build has none, or the driver refuses them
   */
  public NormKernels() {
    for (ElementType type : ElementType.values()) {
      rmsNorm.put(type, module.kernel(type.variant("rms_norm")));
      addRmsNorm.put(type, module.kernel(type.variant("add_rms_norm")));
    }
  }

  /**
   * out = x · weight / sqrt(mean(x²) + epsilon), row by row, computed in float.
   *
   * @param x [rows][dim]
   * @param weight [dim]
   * @param out [rows][dim]; may be x
   */
  public void rmsNorm(
      ElementType type,
      CUdeviceptr x,
      CUdeviceptr weight,
      CUdeviceptr out,
      Shape shape,
      float epsilon,
      @Nullable CUstream stream) {
    kernel(rmsNorm, type)
        .launch(
            shape.rows(),
            THREADS,
            stream,
            Pointer.to(x),
            Pointer.to(weight),
            Pointer.to(out),
            Pointer.to(new int[] {shape.dim()}),
            Pointer.to(new float[] {epsilon}));
  }

  /**
   * x += y, then out as {@link #rmsNorm} of x; the same values as the two steps apart.
   *
   * @param x [rows][dim]
   * @param y [rows][dim]
   * @param weight [dim]
   * @param out [rows][dim]; not x
   */
  public void addRmsNorm(
      ElementType type,
      CUdeviceptr x,
      CUdeviceptr y,
      CUdeviceptr weight,
      CUdeviceptr out,
      Shape shape,
      float epsilon,
      @Nullable CUstream stream) {
    kernel(addRmsNorm, type)
        .launch(
            shape.rows(),
            THREADS,
            stream,
            Pointer.to(x),
            Pointer.to(y),
            Pointer.to(weight),
            Pointer.to(out),
            Pointer.to(new int[] {shape.dim()}),
            Pointer.to(new float[] {epsilon}));
  }

  private static KernelModule.Kernel kernel(
      Map<ElementType, KernelModule.Kernel> kernels, ElementType type) {
    KernelModule.Kernel kernel = kernels.get(type);
    if (kernel == null) {
      throw new IllegalArgumentException("no kernel for " + type);
    }
    return kernel;
  }

  @Override
  public void close() {
    module.close();
  }
}
