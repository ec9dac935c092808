package dev.millrace.topology.cli;

import dev.millrace.inference.backend.DeviceException;
import dev.millrace.inference.checkpoint.InvalidCheckpointException;
import dev.millrace.inference.device.DeviceOptions;
import dev.millrace.inference.device.Devices;
import dev.millrace.inference.engine.EngineConfig;
import dev.millrace.inference.model.ModelRunner;
import dev.millrace.topology.Environment;
import dev.millrace.topology.WorkerConfig;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Locale;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.ArgGroup;
import picocli.CommandLine.Option;

/** Which model a benchmark runs, and on what. */
@SuppressWarnings("NullAway.Init")
final class ModelOptions {
  /** A checkpoint, or a shape. */
  static final class Source {
    @Option(
        names = "--model",
        paramLabel = "DIR",
        description = "Checkpoint to run (default: the one that ships with the project).")
    private @Nullable Path model;

    @Option(
        names = "--config",
        paramLabel = "FILE",
        description = "A config.json alone: its shape, with made-up weights.")
    private @Nullable Path config;
  }

  @ArgGroup private @Nullable Source source;

  @Option(
      names = "--device",
      paramLabel = "NAME",
      defaultValue = "cpu",
      description = "What computes: cpu, or cuda:N for the N-th GPU (default: ${DEFAULT-VALUE}).")
  private String device;

  @Option(
      names = "--dtype",
      paramLabel = "NAME",
      defaultValue = DeviceOptions.AUTO,
      description = "Format of the weights (default: as the checkpoint has them; made up: bf16).")
  private String dtype;

  @Option(
      names = "--kv-dtype",
      paramLabel = "NAME",
      defaultValue = DeviceOptions.AUTO,
      description = "Format of keys and values (default: the backend's).")
  private String kvDtype;

  @Option(
      names = "--cuda-graphs",
      paramLabel = "BOOL",
      defaultValue = "true",
      arity = "1",
      description = "engine.cuda.graphs (default: ${DEFAULT-VALUE}).")
  private boolean cudaGraphs;

  @Option(
      names = "--threads",
      paramLabel = "N",
      defaultValue = "0",
      description = "Threads of the CPU backend (default: one for each core).")
  private int threads;

  @Option(
      names = "--kv-blocks",
      paramLabel = "N",
      defaultValue = "0",
      description =
          "Blocks of keys and values (default: on the CPU what the requests can need at"
              + " once, on a card what it has room for).")
  private int kvBlocks;

  @Option(names = "--invariant", description = "As the setting engine.batch.invariant=true.")
  private boolean invariant;

  @Option(
      names = "--prefill-e4m3",
      paramLabel = "BOOL",
      defaultValue = "true",
      arity = "1",
      description = "engine.prefill.e4m3 (default: ${DEFAULT-VALUE}).")
  private boolean e4m3Prefill;

  @Option(
      names = "--timings",
      paramLabel = "DIR",
      description =
          "Folder that keeps which algorithms multiply fastest on a card, none: it is not kept"
              + " (default: that of a worker without settings).")
  private String timings = "";

  @Option(
      names = "--seed",
      paramLabel = "N",
      defaultValue = "1",
      description = "Of what is made up (default: ${DEFAULT-VALUE}).")
  private long seed;

  long seed() {
    return seed;
  }

  boolean madeUp() {
    return source != null && source.config != null;
  }

  /** The checkpoint's folder; where there is only a shape, its config.json. */
  Path path() {
    if (source != null && source.config != null) {
      return source.config;
    }
    return source != null && source.model != null
        ? source.model
        : Environment.home().resolve(DemoCommand.MODEL);
  }

  /**
   * Where to run it.
   *
   * @param neededBlocks of keys and values, where nothing else is asked for and the backend is the
   *     CPU, whose default is meant for a worker
   */
  DeviceOptions device(long neededBlocks) {
    DeviceOptions options =
        DeviceOptions.of(device.toLowerCase(Locale.ROOT))
            .withFormats(dtype.toLowerCase(Locale.ROOT), kvDtype.toLowerCase(Locale.ROOT))
            .withCudaGraphs(cudaGraphs)
            .withKvBlocks(kvBlocks)
            .withInvariant(invariant)
            .withE4m3Prefill(e4m3Prefill)
            .withTimings(WorkerConfig.timings(timings));
    if (threads > 0) {
      options = options.withThreads(threads);
    }
    return kvBlocks == 0 && options.backend().equals("cpu")
        ? options.withKvBlocks((int) Math.min(Integer.MAX_VALUE, neededBlocks))
        : options;
  }

  /**
   * Opens it. The caller closes it.
   *
   * @throws Failures.CommandFailedException if it cannot be run; the message says why
   */
  ModelRunner open(long neededBlocks, EngineConfig engine) {
    if (!madeUp() && !Files.isDirectory(path())) {
      throw new Failures.CommandFailedException(
          "there is no folder "
              + path().toAbsolutePath()
              + ": give a checkpoint with --model, or a shape with --config");
    }
    try {
      DeviceOptions device =
          device(neededBlocks).withSteps(engine.tokenBudget(), engine.maxSequences());
      return madeUp() ? Devices.openRandom(path(), seed, device) : Devices.open(path(), device);
    } catch (InvalidCheckpointException
        | DeviceException
        | UnsupportedOperationException
        | IllegalArgumentException e) {
      throw new Failures.CommandFailedException(Failures.describe(e), e);
    }
  }
}
