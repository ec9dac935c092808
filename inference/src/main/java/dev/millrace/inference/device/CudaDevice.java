package dev.millrace.inference.device;

import dev.millrace.inference.backend.Backend;
import dev.millrace.inference.backend.KvFormat;
import dev.millrace.inference.backend.cuda.CudaBackend;
import dev.millrace.inference.backend.cuda.CudaRunner;
import dev.millrace.inference.checkpoint.WeightFormat;
import dev.millrace.inference.model.ModelRunner;
import dev.millrace.inference.model.ModelSource;
import dev.millrace.inference.model.Precision;
import java.nio.file.Path;
import java.util.List;

/** What the CUDA backend can do, and how it is opened. */
final class CudaDevice {
  static final String NAME = "cuda";

  /** Of the GPU's free memory; the rest is left to whoever else uses it. */
  private static final double MEMORY_FRACTION = 0.95;

  /** Of weights, and of keys and values. */
  private static final List<String> FORMATS = List.of("bf16", DeviceOptions.FP8);

  private CudaDevice() {}

  static ModelRunner open(Path folder, DeviceOptions options) {
    Precision precision =
        switch (options.dtype()) {
          case "bf16" -> Precision.BF16;
          case DeviceOptions.FP8 -> Precision.FP8;
          default -> Precision.AS_STORED;
        };
    return CudaRunner.open(new ModelSource.Folder(folder, precision), runner(options));
  }

  static ModelRunner openRandom(Path config, long seed, DeviceOptions options) {
    return CudaRunner.open(new ModelSource.Random(config, format(options), seed), runner(options));
  }

  static Backend backend(DeviceOptions options) {
    return new CudaBackend(gpu(options));
  }

  /** Of made-up weights; bf16 unless FP8 is asked for. */
  static WeightFormat format(DeviceOptions options) {
    checkFormats(options);
    return options.dtype().equals(DeviceOptions.FP8) ? WeightFormat.F8_E4M3 : WeightFormat.BF16;
  }

  /** bf16 unless FP8 is asked for. */
  static KvFormat kvFormat(DeviceOptions options) {
    checkFormats(options);
    return options.kvDtype().equals(DeviceOptions.FP8) ? KvFormat.FP8 : KvFormat.NATIVE;
  }

  private static void checkFormats(DeviceOptions options) {
    DeviceOptions.oneOf(NAME, "weights", "dtype", options.dtype(), FORMATS);
    DeviceOptions.oneOf(NAME, "keys and values", "kv-dtype", options.kvDtype(), FORMATS);
  }

  private static CudaBackend.Options gpu(DeviceOptions options) {
    checkFormats(options);
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
    return new CudaBackend.Options(
        options.number(),
        MEMORY_FRACTION,
        options.libraries(),
        options.timings(),
        options.invariant(),
        options.e4m3Prefill());
  }

  private static CudaRunner.Options runner(DeviceOptions options) {
    return new CudaRunner.Options(
        gpu(options),
        options.kvBlocks(),
        options.maxTokens(),
        options.maxSequences(),
        options.kvDtype().equals(DeviceOptions.AUTO) ? null : kvFormat(options),
        options.warmUp(),
        options.cudaGraphs());
  }
}
