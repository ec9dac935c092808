package dev.millrace.inference.device;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.millrace.inference.checkpoint.WeightFormat;
import dev.millrace.inference.model.ModelRunner;
import java.nio.file.Path;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class DevicesTest {
  private static final Path FOLDER = Path.of("src/test/resources/checkpoints/llama-plain-bf16");
  private static final DeviceOptions CPU =
      DeviceOptions.cpu().withThreads(1).withKvBlocks(4).withWarmUp(false);

  @ParameterizedTest
  @CsvSource({"auto,BF16", "bf16,BF16", "f16,F16", "f32,F32"})
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
                    FOLDER.resolve("config.json"), 1, CPU.withFormats("fp8", "auto")))
        .isInstanceOf(UnsupportedOperationException.class)
        .hasMessage("the cpu backend has no weights of fp8: dtype is one of auto, bf16, f16, f32");
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
  void shouldSayWhichBackendsThereAre() {
    assertThatThrownBy(
            () -> Devices.open(FOLDER, new DeviceOptions("tpu", 0, "auto", "auto", 1, 4, false)))
        .hasMessage("there is no backend tpu here, only cpu");
  }

  @Test
  void shouldSayThatThereIsOneCpu() {
    assertThatThrownBy(
            () -> Devices.open(FOLDER, new DeviceOptions("cpu", 1, "auto", "auto", 1, 4, false)))
        .hasMessage("the cpu backend has the one device 0, not 1");
  }
}
