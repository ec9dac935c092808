package dev.millrace.inference.device;

import dev.millrace.inference.backend.Backend;
import dev.millrace.inference.backend.cuda.CudaBackend;
import dev.millrace.inference.backend.cuda.CudaRunner;
import dev.millrace.inference.checkpoint.WeightFormat;
import dev.millrace.inference.model.ModelRunner;
import dev.millrace.inference.model.ModelSource;
import java.nio.file.Path;

/** What the CUDA backend can do, and how it is opened. */
final class CudaDevice {
  static final String NAME = "cuda";

  /** Of the GPU's free memory; the rest is left to whoever else uses it. */
  private static final double MEMORY_FRACTION = 0.95;

  private CudaDevice() {}

  static ModelRunner open(Path folder, DeviceOptions options) {
    return CudaRunner.open(folder, runner(options));
  }

  static ModelRunner openRandom(Path config, long seed, DeviceOptions options) {
    return CudaRunner.open(
        new ModelSource.Random(config, WeightFormat.BF16, seed), runner(options));
  }

  static Backend backend(DeviceOptions options) {
    return new CudaBackend(gpu(options));
  }

  private static CudaBackend.Options gpu(DeviceOptions options) {
    for (String format : new String[] {options.dtype(), options.kvDtype()}) {
      if (!format.equals(DeviceOptions.AUTO) && !format.equals("bf16")) {
        throw new UnsupportedOperationException(
            "the cuda backend has weights, keys and values of bf16 alone, none of " + format);
      }
    }
    int gpus = CudaBackend.devices();
    if (gpus == 0) {
      throw new UnsupportedOperationException(
          "CUDA finds no GPU here: install NVIDIA's driver, or use the device cpu");
    }
    if (options.number() >= gpus) {
      throw new UnsupportedOperationException(
          "there is no GPU %d: this machine has %d, the first is cuda:0"
              .formatted(options.number(), gpus));
    }
    return new CudaBackend.Options(options.number(), MEMORY_FRACTION, options.libraries());
  }

  private static CudaRunner.Options runner(DeviceOptions options) {
    return new CudaRunner.Options(
        gpu(options), options.kvBlocks(), options.maxTokens(), options.maxSequences());
  }
}
