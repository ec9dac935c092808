package dev.millrace.inference.backend.cuda;

import static org.junit.jupiter.api.Assumptions.assumeTrue;

import dev.millrace.kernels.Device;
import dev.millrace.kernels.FewRowsKernels;
import dev.millrace.kernels.HopperProducts;
import dev.millrace.kernels.Rows;
import java.util.concurrent.atomic.AtomicBoolean;

/** The GPU of tests; without one they count as skipped. */
public final class Gpu {
  private static final AtomicBoolean HELD = new AtomicBoolean();

  private Gpu() {}

  /** Skips the test where there is no GPU or no kernels were built. */
  public static void require() {
    assumeTrue(Device.count() > 0, "this machine has no GPU with a CUDA driver");
    assumeTrue(
        Device.class.getResource("norm.fatbin") != null,
        "this build has no kernels: nvcc was not found");
    if (HELD.compareAndSet(false, true)) {
      // Held to the end: making the context anew for each test would take longer than the tests.
      Device.open(0);
    }
  }

  /** As {@link #require}, and skips the test too where the GPU has no units for FP8. */
  static void requireFp8() {
    require();
    assumeTrue(hasFp8(), "this GPU has no units for FP8");
  }

  /** A backend on a small part of the memory. */
  public static CudaBackend open() {
    require();
    return new CudaBackend(options());
  }

  /** As {@link #open}, of one that may compute prompts in e4m3. */
  static CudaBackend openForE4m3() {
    require();
    return new CudaBackend(new CudaBackend.Options(0, 0.05, null, null, false, true));
  }

  /** Whether it has units for FP8. */
  static boolean hasFp8() {
    try (Device device = Device.open(0)) {
      return device.capability() >= 89;
    }
  }

  /** Whether it is a host that emulates one, and takes a second for what a card does at once. */
  static boolean emulated() {
    try (Device device = Device.open(0)) {
      return device.name().contains("emulat");
    }
  }

  /** Whether there are kernels for it that attend in e4m3. */
  static boolean attendsInE4m3() {
    try (Device device = Device.open(0)) {
      return device.capability() == 90 && !emulated();
    }
  }

  /** Numbers of rows, from and to, that kernels of ours multiply alike; the library has others. */
  static int[][] rowsAlike(boolean fp8) {
    try (Device device = Device.open(0);
        HopperProducts products = new HopperProducts(device.multiprocessors())) {
      // Which there are only in a build for the chip, on a card.
      boolean hopper = products.takes(new Rows(0, 16), 1, 0, 16, Byte.BYTES);
      if (fp8 && hopper) {
        return new int[][] {{1, HopperProducts.MOST_ROWS}};
      }
      if (device.sharedBytes() < FewRowsKernels.sharedBytes()) {
        return new int[0][];
      }
      int few = fp8 ? FewRowsKernels.MOST_FP8_ROWS : FewRowsKernels.MOST_ROWS;
      return hopper
          ? new int[][] {{1, few}, {few + 1, HopperProducts.MOST_BF16_ROWS}}
          : new int[][] {{1, few}};
    }
  }

  public static CudaBackend.Options options() {
    return options(false);
  }

  /** A small part of the memory; {@code invariant}: as {@link CudaBackend.Options} has it. */
  public static CudaBackend.Options options(boolean invariant) {
    return new CudaBackend.Options(0, 0.05, null, null, invariant, false);
  }
}
