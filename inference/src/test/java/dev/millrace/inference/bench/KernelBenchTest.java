package dev.millrace.inference.bench;

import static org.assertj.core.api.Assertions.assertThat;

import dev.millrace.inference.backend.KvFormat;
import dev.millrace.inference.checkpoint.ModelConfig;
import dev.millrace.inference.checkpoint.WeightFormat;
import dev.millrace.inference.device.DeviceOptions;
import dev.millrace.inference.device.Devices;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

class KernelBenchTest {
  private static final Ceilings CEILINGS = new Ceilings(1e9, 4e9);
  private static final ModelConfig CONFIG =
      ModelConfig.read(Path.of("src/test/resources/checkpoints/llama-plain-bf16"));

  private static KernelBench bench(long rotateBytes) {
    DeviceOptions device = DeviceOptions.of("cpu").withThreads(1);
    return new KernelBench(() -> Devices.backend(device), CEILINGS, rotateBytes, 0);
  }

  private static List<KernelBench.Result> run() {
    return run(WeightFormat.BF16);
  }

  private static List<KernelBench.Result> run(WeightFormat format) {
    List<KernelBench.Result> results = new ArrayList<>();
    bench(1 << 10)
        .run(
            KernelCases.of(
                CONFIG, format, KvFormat.NATIVE, new KernelCases.Sizes(List.of(1, 3), 2, 20, 5)),
            results::add);
    return results;
  }

  @ParameterizedTest
  @EnumSource(names = {"BF16", "F8_E4M3"})
  void shouldTimeEachOperationOfABackend(WeightFormat format) {
    List<KernelBench.Result> results = run(format);
    assertThat(results).allSatisfy(r -> assertThat(r.seconds()).isPositive());
    assertThat(results.stream().map(r -> r.which().operation().split(" ")[0]).distinct())
        .containsExactlyInAnyOrder(
            "embed",
            "rmsNorm",
            "addRmsNorm",
            "add",
            "linear",
            "qkv",
            "ropeAndStore",
            "gateUp",
            "siluMul",
            "attention",
            "logitRows",
            "sample");
  }

  @Test
  void shouldCountWhatEachMustDo() {
    int hidden = CONFIG.hiddenSize();
    int queries = CONFIG.heads() * CONFIG.headDim();
    int kv = CONFIG.blocks().getFirst().kvHeads() * CONFIG.headDim();
    List<KernelBench.Result> results = run();
    assertThat(work(results, "rmsNorm 3 x " + hidden).bytes()).isEqualTo(2.0 * 3 * hidden * 4);
    assertThat(work(results, "addRmsNorm 3 x " + hidden).bytes()).isEqualTo(4.0 * 3 * hidden * 4);
    Roofline.Work linear = work(results, "linear o 3 x %d x %d".formatted(queries, hidden));
    assertThat(linear.flops()).isEqualTo(2.0 * 3 * queries * hidden);
    assertThat(linear.bytes()).isEqualTo(2.0 * queries * hidden + 4.0 * 3 * (queries + hidden));
    // Keys and values of the one layer that a call reads, in float32; two sequences of 20 tokens.
    Roofline.Work decode = work(results, "attention decode, 2 of 20");
    assertThat(decode.bytes()).isEqualTo(2.0 * 20 * 2 * kv * 4 + 2.0 * 2 * queries * 4);
    assertThat(decode.flops()).isEqualTo(4.0 * queries * 2 * 20);
    // Five tokens look at 1, 2, 3, 4 and 5 positions.
    assertThat(work(results, "attention prefill, 5").flops()).isEqualTo(4.0 * queries * 15);
  }

  private static Roofline.Work work(List<KernelBench.Result> results, String name) {
    return results.stream()
        .filter(r -> name.equals(r.which().operation() + " " + r.which().shape()))
        .findFirst()
        .orElseThrow()
        .work();
  }

  @Test
  void shouldUseAsManyBuffersAsNoCacheHolds() {
    assertThat(bench(1000).sets(300)).isEqualTo(4);
    assertThat(bench(1000).sets(1e9)).isEqualTo(2);
    assertThat(bench(1L << 40).sets(1)).isEqualTo(4096);
  }

  @Test
  void shouldCompareWithTheCeilingThatBoundsIt() {
    KernelCase which =
        new KernelCase(
            "add", "", (b, s) -> new KernelCase.Prepared(new Roofline.Work(0, 0), i -> {}));
    var memory = new KernelBench.Result(which, new Roofline.Work(1e6, 1e6), 2e-3, CEILINGS);
    assertThat(memory.memoryBound()).isTrue();
    assertThat(memory.bytesPerSecond()).isEqualTo(5e8);
    assertThat(memory.ofCeiling()).isEqualTo(0.5);
    var arithmetic = new KernelBench.Result(which, new Roofline.Work(1e6, 8e6), 4e-3, CEILINGS);
    assertThat(arithmetic.memoryBound()).isFalse();
    assertThat(arithmetic.flopsPerSecond()).isEqualTo(2e9);
    assertThat(arithmetic.ofCeiling()).isEqualTo(0.5);
  }
}
