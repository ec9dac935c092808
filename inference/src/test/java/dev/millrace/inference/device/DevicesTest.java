package dev.millrace.inference.device;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import dev.millrace.inference.backend.cuda.CudaBackend;
import dev.millrace.inference.checkpoint.WeightFormat;
import dev.millrace.inference.model.ModelRunner;
import java.nio.file.Path;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class DevicesTest {
  private static final Path FOLDER = Path.of("src/test/resources/checkpoints/llama-plain-bf16");
  private static final DeviceOptions CPU =
      DeviceOptions.of("cpu").withThreads(1).withKvBlocks(4).withWarmUp(false);

  @ParameterizedTest
  // FP8 is kept as bf16 there.
  @CsvSource({"auto,BF16", "bf16,BF16", "f16,F16", "f32,F32", "fp8,BF16"})
  void shouldMakeRandomWeightsOfTheFormatAskedFor(String dtype, WeightFormat format) {
    try (ModelRunner runner =
        Devices.openRandom(FOLDER.resolve("config.json"), 1, CPU.withFormats(dtype, "auto"))) {
      assertThat(runner.footprint().format()).isEqualTo(format);
    }
  }

  @Test
  void shouldSayWhichWeightFormatsThereAre() {
    assertThatThrownBy(
            () ->
                Devices.openRandom(
                    FOLDER.resolve("config.json"), 1, CPU.withFormats("int4", "auto")))
        .isInstanceOf(UnsupportedOperationException.class)
        .hasMessage(
            "the cpu backend has no weights of int4: dtype is one of auto, bf16, f16, f32, fp8");
  }

  @Test
  void shouldSayWhichFormatsOfKeysAndValuesThereAre() {
    assertThatThrownBy(() -> Devices.open(FOLDER, CPU.withFormats("auto", "fp8")))
        .hasMessage("the cpu backend has no keys and values of fp8: kv-dtype is one of auto, f32");
  }

  @Test
  void shouldNotChangeTheFormatOfACheckpoint() {
    assertThatThrownBy(() -> Devices.open(FOLDER, CPU.withFormats("f32", "auto")))
        .hasMessageContaining("as they are")
        .hasMessageContaining("leave dtype at auto");
  }

  @Test
  void shouldMakeFp8OfACheckpoint() {
    try (ModelRunner runner = Devices.open(FOLDER, CPU.withFormats("fp8", "auto"))) {
      assertThat(runner.footprint().format()).isEqualTo(WeightFormat.BF16);
    }
  }

  @Test
  void shouldSayWhichDevicesThereAre() {
    assertThatThrownBy(() -> DeviceOptions.of("tpu"))
        .hasMessage("there is no device 'tpu': it is cpu, or cuda:N for the N-th GPU");
    assertThatThrownBy(() -> Devices.open(FOLDER, DeviceOptions.of("cpu:1")))
        .hasMessage("there is one CPU: the device is cpu, not cpu:1");
  }

  @Test
  void shouldReadTheNumberOfACard() {
    assertThat(DeviceOptions.of("cuda:3").number()).isEqualTo(3);
    assertThat(DeviceOptions.of("cuda")).isEqualTo(DeviceOptions.of("cuda:0"));
  }

  @Test
  void shouldSayThatThereIsNoGpu() {
    assumeTrue(CudaBackend.devices() == 0, "this machine has a GPU");
    assertThatThrownBy(() -> Devices.open(FOLDER, DeviceOptions.of("cuda:0")))
        .isInstanceOf(UnsupportedOperationException.class)
        .hasMessage("CUDA finds no GPU here: install NVIDIA's driver, or use the device cpu");
  }

  @Test
  void shouldSayWhichFormatsAGpuHas() {
    assertThatThrownBy(
            () -> Devices.open(FOLDER, DeviceOptions.of("cuda:0").withFormats("f16", "auto")))
        .isInstanceOf(UnsupportedOperationException.class)
        .hasMessage("the cuda backend has no weights of f16: dtype is one of auto, bf16, fp8");
  }
}
