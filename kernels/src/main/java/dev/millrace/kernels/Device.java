package dev.millrace.kernels;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import jcuda.driver.CUcontext;
import jcuda.driver.CUdevice;
import jcuda.driver.CUdevice_attribute;
import jcuda.driver.JCudaDriver;

/**
 * One GPU and its primary context, current on the thread that opened it; other threads call {@link
 * #makeCurrent()} first. Whoever opens it closes it, after everything that was made in it.
 */
public final class Device implements AutoCloseable {
  private static final Path MODULE = Path.of("/proc/driver/nvidia/version");
  private static final Pattern RELEASE = Pattern.compile("\\b[0-9]{3,}\\.[0-9]+(\\.[0-9]+)?\\b");

  /** JCuda shows its pointers to subclasses alone. */
  private static final class Context extends CUcontext {
    long address() {
      return getNativePointer();
    }
  }

  private final StreamCalls calls = StreamCalls.installed();
  private final CUdevice device;
  private final Context context;
  private final int ordinal;

  private Device(CUdevice device, Context context, int ordinal) {
    this.device = device;
    this.context = context;
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
    Context context = new Context();
    CudaException.check(
        JCudaDriver.cuDevicePrimaryCtxRetain(context, device),
        "cuDevicePrimaryCtxRetain",
        "device " + ordinal);
    Device opened = new Device(device, context, ordinal);
    opened.makeCurrent();
    return opened;
  }

  /** Lets the calling thread use the GPU. */
  public void makeCurrent() {
    calls.setCurrent(context.address(), ordinal);
  }

  /** The driver's version and the CUDA version that it is for: {@code 580.159.04, CUDA 13000}. */
  public static String driver() {
    init();
    int[] version = new int[1];
    CudaException.check(JCudaDriver.cuDriverGetVersion(version), "cuDriverGetVersion");
    return release() + ", CUDA " + version[0];
  }

  /** As the kernel's module tells it; empty where it does not. */
  private static String release() {
    try {
      Matcher release = RELEASE.matcher(Files.readString(MODULE));
      return release.find() ? release.group() : "";
    } catch (IOException e) {
      return "";
    }
  }

  /** {@code NVIDIA H200}, say. */
  public String name() {
    byte[] name = new byte[256];
    CudaException.check(
        JCudaDriver.cuDeviceGetName(name, name.length, device), "cuDeviceGetName", ordinal);
    int length = 0;
    while (length < name.length && name[length] != 0) {
      length++;
    }
    return new String(name, 0, length, StandardCharsets.US_ASCII);
  }

  /** The compute capability, 90 for 9.0. */
  public int capability() {
    return 10 * attribute(CUdevice_attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)
        + attribute(CUdevice_attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
  }

  public int multiprocessors() {
    return attribute(CUdevice_attribute.CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
  }

  /** Bytes of shared memory that a block may have if it asks for them. */
  public int sharedBytes() {
    return attribute(CUdevice_attribute.CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN);
  }

  /** Whether all blocks of a kernel can be made to run at once. */
  public boolean launchesTogether() {
    return attribute(CUdevice_attribute.CU_DEVICE_ATTRIBUTE_COOPERATIVE_LAUNCH) != 0;
  }

  /** Bytes that nobody has taken, of this GPU. */
  public long freeMemory() {
    return memory()[0];
  }

  /** Bytes of this GPU. */
  public long totalMemory() {
    return memory()[1];
  }

  private static long[] memory() {
    long[] free = new long[1];
    long[] total = new long[1];
    CudaException.check(JCudaDriver.cuMemGetInfo(free, total), "cuMemGetInfo");
    return new long[] {free[0], total[0]};
  }

  private int attribute(int attribute) {
    int[] value = new int[1];
    CudaException.check(
        JCudaDriver.cuDeviceGetAttribute(value, attribute, device),
        "cuDeviceGetAttribute",
        CUdevice_attribute.stringFor(attribute));
    return value[0];
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
