package dev.millrace.kernels;

import jcuda.driver.CUcontext;
import jcuda.driver.CUdevice;
import jcuda.driver.JCudaDriver;

/**
 * One GPU and its primary context, current on the thread that opened it. That thread closes it,
 * after every {@link KernelModule} that it loaded.
 */
public final class Device implements AutoCloseable {
  private final CUdevice device;
  private final int ordinal;

  private Device(CUdevice device, int ordinal) {
    this.device = device;
    this.ordinal = ordinal;
  }

  /** GPUs of this machine; 0 where there is no CUDA driver. */
  public static int count() {
    try {
      init();
    } catch (CudaException e) {
      return 0;
    }
    int[] count = new int[1];
    CudaException.check(JCudaDriver.cuDeviceGetCount(count), "cuDeviceGetCount");
    return count[0];
  }

  /**
   * Opens a GPU and makes its context current.
   *
   * @param ordinal 0 for the first
   * @throws CudaException if there is no driver or no such GPU
   */
  public static Device open(int ordinal) {
    init();
    CUdevice device = new CUdevice();
    CudaException.check(JCudaDriver.cuDeviceGet(device, ordinal), "cuDeviceGet", ordinal);
    CUcontext context = new CUcontext();
    CudaException.check(
        JCudaDriver.cuDevicePrimaryCtxRetain(context, device),
        "cuDevicePrimaryCtxRetain",
        "device " + ordinal);
    CudaException.check(
        JCudaDriver.cuCtxSetCurrent(context), "cuCtxSetCurrent", "device " + ordinal);
    return new Device(device, ordinal);
  }

  private static void init() {
    try {
      CudaException.check(JCudaDriver.cuInit(0), "cuInit", 0);
    } catch (LinkageError e) {
      throw new CudaException(
          "CUDA cannot be used: its driver (libcuda.so.1) was not found, or JCuda has no native"
              + " library for this platform. Install NVIDIA's driver, or use the CPU backend. "
              + e.getMessage(),
          e);
    }
  }

  @Override
  public void close() {
    CudaException.check(
        JCudaDriver.cuDevicePrimaryCtxRelease(device),
        "cuDevicePrimaryCtxRelease",
        "device " + ordinal);
  }
}
