package dev.millrace.topology.cli;

import static org.assertj.core.api.Assertions.assertThat;

import dev.millrace.inference.device.DeviceOptions;
import org.junit.jupiter.api.Test;
import picocli.CommandLine;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;

class ModelOptionsTest {
  @Command
  private static final class Any {
    @Mixin private final ModelOptions options = new ModelOptions();
  }

  @Test
  void shouldTakeADeviceAsItIsUnlessToldOtherwise() {
    DeviceOptions options = options("--device", "cuda:1");
    assertThat(options.backend()).isEqualTo("cuda");
    assertThat(options.number()).isEqualTo(1);
    assertThat(options.e4m3Prefill()).isTrue();
    assertThat(options.cudaGraphs()).isTrue();
    assertThat(options.invariant()).isFalse();
  }

  @Test
  void shouldTellTheDeviceNotToComputePromptsInE4m3() {
    DeviceOptions options = options("--device", "cuda:0", "--prefill-e4m3", "false");
    assertThat(options.e4m3Prefill()).isFalse();
    assertThat(options.cudaGraphs()).isTrue();
  }

  @Test
  void shouldTellTheDeviceNotToRecordGraphs() {
    DeviceOptions options = options("--device", "cuda:0", "--cuda-graphs", "false");
    assertThat(options.cudaGraphs()).isFalse();
    assertThat(options.e4m3Prefill()).isTrue();
  }

  private static DeviceOptions options(String... arguments) {
    Any any = new Any();
    new CommandLine(any).parseArgs(arguments);
    return any.options.device(1);
  }
}
