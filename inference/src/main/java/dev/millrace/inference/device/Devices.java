package dev.millrace.inference.device;

import dev.millrace.inference.backend.Backend;
import dev.millrace.inference.backend.KvFormat;
import dev.millrace.inference.checkpoint.WeightFormat;
import dev.millrace.inference.model.ModelRunner;
import java.nio.file.Path;

/** The devices that this build runs models on. */
public final class Devices {
  private Devices() {}

  /**
   * Opens the folder of a Hugging Face checkpoint. The caller closes the runner, after the engine.
   *
   * @throws UnsupportedOperationException if there is no such backend here, or it cannot do what is
   *     asked; the message lists what it can do
   * @throws dev.millrace.inference.checkpoint.InvalidCheckpointException if the checkpoint is
   *     damaged, incomplete or of a kind that is not supported
   */
  public static ModelRunner open(Path folder, DeviceOptions options) {
    return switch (options.backend()) {
      case CpuDevice.NAME -> CpuDevice.open(folder, options);
      case CudaDevice.NAME -> CudaDevice.open(folder, options);
      default -> throw unknown(options.backend());
    };
  }

  /**
   * As {@link #open}, of the shape that a {@code config.json} tells, with made-up weights in the
   * format that {@link DeviceOptions#dtype} names.
   *
   * @param seed equal seeds give equal weights
   */
  public static ModelRunner openRandom(Path config, long seed, DeviceOptions options) {
    return switch (options.backend()) {
      case CpuDevice.NAME -> CpuDevice.openRandom(config, seed, options);
      case CudaDevice.NAME -> CudaDevice.openRandom(config, seed, options);
      default -> throw unknown(options.backend());
    };
  }

  /**
   * The format of made-up weights that {@link DeviceOptions#dtype} names.
   *
   * @throws UnsupportedOperationException if the backend has no such weights
   */
  public static WeightFormat randomFormat(DeviceOptions options) {
    return switch (options.backend()) {
      case CpuDevice.NAME -> CpuDevice.format(options);
      case CudaDevice.NAME -> CudaDevice.format(options);
      default -> throw unknown(options.backend());
    };
  }

  /**
   * What {@link DeviceOptions#kvDtype} makes of keys and values where no checkpoint has a say.
   *
   * @throws UnsupportedOperationException if the backend has no such cache
   */
  public static KvFormat kvFormat(DeviceOptions options) {
    return switch (options.backend()) {
      case CpuDevice.NAME -> CpuDevice.kvFormat(options);
      case CudaDevice.NAME -> CudaDevice.kvFormat(options);
      default -> throw unknown(options.backend());
    };
  }

  /** A backend with no model on it. The caller closes it. */
  public static Backend backend(DeviceOptions options) {
    return switch (options.backend()) {
      case CpuDevice.NAME -> CpuDevice.backend(options);
      case CudaDevice.NAME -> CudaDevice.backend(options);
      default -> throw unknown(options.backend());
    };
  }

  private static UnsupportedOperationException unknown(String name) {
    return new UnsupportedOperationException(
        "this build has no backend for %s: use the device cpu or cuda:N".formatted(name));
  }
}
