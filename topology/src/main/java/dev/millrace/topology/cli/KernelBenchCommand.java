package dev.millrace.topology.cli;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.millrace.inference.backend.Backend;
import dev.millrace.inference.backend.KvFormat;
import dev.millrace.inference.bench.Ceilings;
import dev.millrace.inference.bench.KernelBench;
import dev.millrace.inference.bench.KernelCase;
import dev.millrace.inference.bench.KernelCases;
import dev.millrace.inference.checkpoint.InvalidCheckpointException;
import dev.millrace.inference.checkpoint.ModelConfig;
import dev.millrace.inference.checkpoint.WeightFormat;
import dev.millrace.inference.device.DeviceOptions;
import dev.millrace.inference.device.Devices;
import java.nio.file.Path;
import java.util.List;
import java.util.concurrent.Callable;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Spec;

/** {@code millrace bench kernels}. */
@Command(
    name = "kernels",
    description = {
      "Times each operation of a backend at the shapes of a model, with buffers used in turn so",
      "that nothing comes from a cache, beside the device's ceilings, which it measures first."
    })
@SuppressWarnings("NullAway.Init")
public final class KernelBenchCommand implements Callable<Integer> {
  @Mixin private ModelOptions model;

  @Option(
      names = "--rows",
      paramLabel = "N",
      split = ",",
      defaultValue = "1,16,256",
      description = "Rows of activations, one case each (default: ${DEFAULT-VALUE}).")
  private List<Integer> rows;

  @Option(
      names = "--sequences",
      paramLabel = "N",
      defaultValue = "32",
      description = "Sequences of a decode step (default: ${DEFAULT-VALUE}).")
  private int sequences;

  @Option(
      names = "--context",
      paramLabel = "N",
      defaultValue = "1024",
      description = "Tokens that each of them looks at (default: ${DEFAULT-VALUE}).")
  private int context;

  @Option(
      names = "--prompt",
      paramLabel = "N",
      defaultValue = "512",
      description = "Tokens of a prefill (default: ${DEFAULT-VALUE}).")
  private int prompt;

  @Option(
      names = "--rotate",
      paramLabel = "MIB",
      defaultValue = "256",
      description =
          "What the buffers of an operation take together, in MiB: more than the caches"
              + " hold (default: ${DEFAULT-VALUE}).")
  private int rotate;

  @Option(
      names = "--seconds",
      paramLabel = "S",
      defaultValue = "0.5",
      description = "Repeat each for so long (default: ${DEFAULT-VALUE}).")
  private double seconds;

  @Option(
      names = "--only",
      paramLabel = "NAME",
      description = "Only operations whose name begins so.")
  private @Nullable String only;

  @Option(names = "--json", description = "Print one JSON object and nothing else.")
  private boolean json;

  @Spec private CommandSpec spec;

  @Override
  public Integer call() {
    Logs.errorsOnly();
    Screen screen = new Screen(spec.commandLine().getOut());
    DeviceOptions device = model.device(0);
    Path file = model.madeUp() ? model.path() : model.path().resolve("config.json");
    try {
      ModelConfig config = ModelConfig.readFile(file);
      WeightFormat format = Devices.randomFormat(device);
      KvFormat kv = Devices.kvFormat(device);
      KernelCases.Sizes sizes = new KernelCases.Sizes(rows, sequences, context, prompt);
      List<KernelCase> cases = KernelCases.of(config, format, kv, sizes);
      String prefix = only == null ? "" : only;
      run(
          screen,
          device,
          format,
          cases.stream().filter(c -> c.operation().startsWith(prefix)).toList());
    } catch (InvalidCheckpointException
        | UnsupportedOperationException
        | IllegalArgumentException e) {
      throw new Failures.CommandFailedException(Failures.describe(e), e);
    }
    return 0;
  }

  private void run(
      Screen screen, DeviceOptions device, WeightFormat format, List<KernelCase> cases) {
    Ceilings ceilings;
    String name;
    try (Backend backend = Devices.backend(device)) {
      ceilings = Ceilings.measure(backend.gauge(), format);
      name = backend.describe();
    }
    KernelBench bench =
        new KernelBench(() -> Devices.backend(device), ceilings, (long) rotate << 20, seconds);
    if (json) {
      ObjectNode root = new ObjectMapper().createObjectNode();
      root.put("device", name);
      root.put("ceiling_read_bytes_per_second", ceilings.readBytes());
      root.put("ceiling_flops_per_second", ceilings.flops());
      ArrayNode results = root.putArray("results");
      bench.run(cases, result -> add(results, result));
      screen.line("%s", root);
      return;
    }
    screen.line("%s, weights %s, keys and values %s", name, format, Devices.kvFormat(device));
    screen.line(
        "ceilings: read %.1f GB/s, arithmetic %s",
        ceilings.readBytes() / 1e9, EngineTable.flops(ceilings.flops()));
    screen.line(
        "%-14s %-28s %12s %10s %12s %8s", "operation", "shape", "us", "GB/s", "GFLOP/s", "ceiling");
    bench.run(cases, result -> row(screen, result));
  }

  private static void row(Screen screen, KernelBench.Result result) {
    screen.line(
        "%-14s %-28s %12.2f %10.2f %12.1f %6.1f %% of %s",
        result.which().operation(),
        result.which().shape(),
        result.seconds() * 1e6,
        result.bytesPerSecond() / 1e9,
        result.flopsPerSecond() / 1e9,
        100 * result.ofCeiling(),
        result.memoryBound() ? "reading" : "arithmetic");
  }

  private static void add(ArrayNode results, KernelBench.Result result) {
    ObjectNode node = results.addObject();
    node.put("operation", result.which().operation());
    node.put("shape", result.which().shape());
    node.put("seconds", result.seconds());
    node.put("bytes", result.work().bytes());
    node.put("flops", result.work().flops());
    node.put("of_ceiling", result.ofCeiling());
    node.put("memory_bound", result.memoryBound());
  }
}
