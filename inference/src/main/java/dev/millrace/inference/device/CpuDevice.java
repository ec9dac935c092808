package dev.millrace.inference.device;

import dev.millrace.inference.backend.Backend;
import dev.millrace.inference.backend.cpu.CpuBackend;
import dev.millrace.inference.backend.cpu.CpuRunner;
import dev.millrace.inference.checkpoint.WeightFormat;
import dev.millrace.inference.model.ModelRunner;
import dev.millrace.inference.model.ModelSource;
import java.nio.file.Path;
import java.util.List;
import java.util.Locale;

/** What the CPU backend can do, and how it is opened. */
final class CpuDevice {
  static final String NAME = "cpu";
  private static final List<String> WEIGHTS = List.of("bf16", "f16", "f32");
  private static final List<String> KEYS_AND_VALUES = List.of("f32");

  private CpuDevice() {}

  static ModelRunner open(Path folder, DeviceOptions options) {
    check(options);
    if (!options.dtype().equals(DeviceOptions.AUTO)) {
      throw new UnsupportedOperationException(
          "the cpu backend reads the weights of a checkpoint as they are and cannot make "
              + options.dtype()
              + " of them: leave dtype at "
              + DeviceOptions.AUTO);
    }
    return CpuRunner.open(folder, runner(options));
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
    return options.dtype().equals(DeviceOptions.AUTO)
        ? WeightFormat.BF16
        : WeightFormat.valueOf(options.dtype().toUpperCase(Locale.ROOT));
  }

  private static void check(DeviceOptions options) {
    if (options.number() != 0) {
      throw new UnsupportedOperationException(
          "there is one CPU: the device is cpu, not cpu:" + options.number());
    }
    oneOf("weights", "dtype", options.dtype(), WEIGHTS);
    oneOf("keys and values", "kv-dtype", options.kvDtype(), KEYS_AND_VALUES);
  }

  private static void oneOf(String what, String name, String asked, List<String> known) {
    if (!asked.equals(DeviceOptions.AUTO) && !known.contains(asked)) {
      throw new UnsupportedOperationException(
          "the cpu backend has no %s of %s: %s is one of %s, %s"
              .formatted(what, asked, name, DeviceOptions.AUTO, String.join(", ", known)));
    }
  }

  private static CpuRunner.Options runner(DeviceOptions options) {
    return new CpuRunner.Options(options.threads(), options.kvBlocks(), options.warmUp());
  }
}
