package dev.millrace.inference.backend.cuda;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import dev.millrace.kernels.Device;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.Test;

class BrokenGpuTest {
  private static final Path NAS = Path.of("src/test/resources/checkpoints/nemotron-nas-bf16");

  @Test
  void shouldFailEveryStepOnceAKernelBrokeTheGpu() throws IOException, InterruptedException {
    Gpu.require();
    try (Device device = Device.open(0)) {
      assumeTrue(!device.name().contains("emulat"), "an emulated GPU breaks with the process");
    }
    List<String> command = new ArrayList<>();
    command.add(Path.of(System.getProperty("java.home"), "bin/java").toString());
    command.addAll(
        List.of("--add-modules=jdk.incubator.vector", "--enable-native-access=ALL-UNNAMED"));
    command.addAll(List.of("-cp", System.getProperty("java.class.path")));
    command.addAll(List.of(BrokenGpu.class.getName(), NAS.toString()));
    Process process = new ProcessBuilder(command).redirectErrorStream(true).start();
    String out = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
    assertThat(process.waitFor()).as(out).isZero();
    assertThat(out)
        .contains("block 1: token drawn")
        .containsPattern("block \\d{6,}: fatal: .*CUDA_ERROR_ILLEGAL_ADDRESS")
        .contains("block 1: fatal: ")
        .contains("closed");
  }
}
