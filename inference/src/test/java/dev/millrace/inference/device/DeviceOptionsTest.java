package dev.millrace.inference.device;

import static org.assertj.core.api.Assertions.assertThat;

import java.lang.reflect.RecordComponent;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.function.UnaryOperator;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

class DeviceOptionsTest {
  /** No two components of a type are alike. */
  private static final DeviceOptions ALL =
      new DeviceOptions(
          "cuda", 1, "bf16", "fp8", 2, 3, 4, 5, Path.of("a"), Path.of("b"), true, true, true, true);

  private record Change(String name, UnaryOperator<DeviceOptions> by, Map<String, Object> to) {
    @Override
    public String toString() {
      return name;
    }
  }

  private static Stream<Change> changes() {
    return Stream.of(
        new Change(
            "withFormats",
            o -> o.withFormats("fp8", "bf16"),
            Map.of("dtype", "fp8", "kvDtype", "bf16")),
        new Change("withKvBlocks", o -> o.withKvBlocks(9), Map.of("kvBlocks", 9)),
        new Change("withThreads", o -> o.withThreads(9), Map.of("threads", 9)),
        new Change("withSteps", o -> o.withSteps(9, 8), Map.of("maxTokens", 9, "maxSequences", 8)),
        new Change(
            "withLibraries", o -> o.withLibraries(Path.of("c")), Map.of("libraries", Path.of("c"))),
        new Change(
            "withTimings", o -> o.withTimings(Path.of("c")), Map.of("timings", Path.of("c"))),
        new Change("withE4m3Prefill", o -> o.withE4m3Prefill(false), Map.of("e4m3Prefill", false)),
        new Change("withInvariant", o -> o.withInvariant(false), Map.of("invariant", false)),
        new Change("withWarmUp", o -> o.withWarmUp(false), Map.of("warmUp", false)),
        new Change("withCudaGraphs", o -> o.withCudaGraphs(false), Map.of("cudaGraphs", false)));
  }

  @ParameterizedTest
  @MethodSource("changes")
  void shouldChangeWhatIsNamedAndNothingElse(Change change) throws ReflectiveOperationException {
    Map<String, Object> expected = components(ALL);
    expected.putAll(change.to);
    assertThat(components(change.by.apply(ALL))).isEqualTo(expected);
  }

  @Test
  void shouldComputePromptsInE4m3AndDecodesAsGraphsUnlessToldOtherwise() {
    DeviceOptions options = DeviceOptions.of("cuda:3");
    assertThat(options.number()).isEqualTo(3);
    assertThat(options.e4m3Prefill()).isTrue();
    assertThat(options.cudaGraphs()).isTrue();
    assertThat(options.warmUp()).isTrue();
    assertThat(options.invariant()).isFalse();
  }

  private static Map<String, Object> components(DeviceOptions options)
      throws ReflectiveOperationException {
    Map<String, Object> all = new LinkedHashMap<>();
    for (RecordComponent component : DeviceOptions.class.getRecordComponents()) {
      all.put(component.getName(), component.getAccessor().invoke(options));
    }
    return all;
  }
}
