package dev.millrace.inference.device;

import dev.millrace.inference.backend.Backend;
import dev.millrace.inference.backend.KvFormat;
import dev.millrace.inference.backend.cpu.CpuBackend;
import dev.millrace.inference.backend.cpu.CpuRunner;
import dev.millrace.inference.checkpoint.WeightFormat;
import dev.millrace.inference.model.ModelRunner;
import dev.millrace.inference.model.ModelSource;
import dev.millrace.inference.model.Precision;
import java.nio.file.Path;
import java.util.List;
import java.util.Locale;

/** What the CPU backend can do, and how it is opened. */
final class CpuDevice {
  static final String NAME = "cpu";
  private static final List<String> WEIGHTS = List.of("bf16", "f16", "f32", DeviceOptions.FP8);
  private static final List<String> KEYS_AND_VALUES = List.of("f32");

  private CpuDevice() {}

  static ModelRunner open(Path folder, DeviceOptions options) {
    check(options);
    boolean fp8 = options.dtype().equals(DeviceOptions.FP8);
    if (!fp8 && !options.dtype().equals(DeviceOptions.AUTO)) {
      throw new UnsupportedOperationException(
          "the cpu backend reads the weights of a checkpoint as they are or makes fp8 of them, but"
              + " cannot make "
              + options.dtype()
              + ": leave dtype at "
              + DeviceOptions.AUTO);
    }
    Precision precision = fp8 ? Precision.FP8 : Precision.AS_STORED;
    return CpuRunner.open(new ModelSource.Folder(folder, precision), runner(options));
  }

  static ModelRunner openRandom(Path config, long seed, DeviceOptions options) {
    return CpuRunner.open(new ModelSource.Random(config, format(options), seed), runner(options));
  }

  static Backend backend(DeviceOptions options) {
    check(options);
    return new CpuBackend(options.threads());
  }

  /** Of made-up weights; bf16 unless another is asked for. */
  static WeightFormat format(DeviceOptions options) {
    check(options);
    return switch (options.dtype()) {
      case DeviceOptions.AUTO -> WeightFormat.BF16;
      case DeviceOptions.FP8 -> WeightFormat.F8_E4M3;
      default -> WeightFormat.valueOf(options.dtype().toUpperCase(Locale.ROOT));
    };
  }

  /** Its own, whatever is asked for that it has. */
  static KvFormat kvFormat(DeviceOptions options) {
    check(options);
    return KvFormat.NATIVE;
  }

  private static void check(DeviceOptions options) {
    if (options.number() != 0) {
      throw new UnsupportedOperationException(
          "there is one CPU: the device is cpu, not cpu:" + options.number());
    }
    DeviceOptions.oneOf(NAME, "weights", "dtype", options.dtype(), WEIGHTS);
    DeviceOptions.oneOf(NAME, "keys and values", "kv-dtype", options.kvDtype(), KEYS_AND_VALUES);
  }

  private static CpuRunner.Options runner(DeviceOptions options) {
    return new CpuRunner.Options(options.threads(), options.kvBlocks(), options.warmUp());
  }
}
