package dev.millrace.topology.cli;

import dev.millrace.inference.api.Generator;
import dev.millrace.inference.backend.DeviceException;
import dev.millrace.inference.checkpoint.InvalidCheckpointException;
import dev.millrace.inference.device.DeviceOptions;
import dev.millrace.inference.engine.EngineConfig;
import dev.millrace.inference.pipeline.LlmGenerator;
import dev.millrace.topology.ConfigException;
import dev.millrace.topology.WorkerConfig;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;

/** Opens the model that a worker's settings name. */
final class Models {
  private Models() {}

  /**
   * Loads and warms it. The caller closes it.
   *
   * @throws ConfigException if it cannot be served; the message says what is wrong
   * @throws Failures.CommandFailedException if it cannot be read
   */
  static Generator load(WorkerConfig config) {
    Path folder = config.modelPath();
    if (!Files.isDirectory(folder)) {
      throw new ConfigException(
          "there is no folder "
              + folder.toAbsolutePath()
              + ": model.path must be the folder of a Hugging Face checkpoint");
    }
    WorkerConfig.EngineSettings engine = config.engine();
    String name =
        config.modelName().isEmpty()
            ? folder.toAbsolutePath().normalize().getFileName().toString()
            : config.modelName();
    try {
      return LlmGenerator.open(
          folder,
          new EngineConfig(
              engine.maxSequences(),
              engine.tokenBudget(),
              engine.maxChunk(),
              engine.prefixCache(),
              EngineConfig.defaults().maxBypass(),
              EngineConfig.defaults().stepAttempts(),
              engine.lowShare()),
          DeviceOptions.of(engine.device())
              .withFormats(engine.dtype(), engine.kvDtype())
              .withCudaGraphs(engine.cudaGraphs())
              .withSteps(engine.tokenBudget(), engine.maxSequences())
              .withThreads(engine.threads())
              .withKvBlocks(engine.kvBlocks())
              .withInvariant(engine.invariant())
              .withE4m3Prefill(engine.e4m3Prefill())
              .withTimings(engine.timings()),
          LlmGenerator.Options.of(name));
    } catch (UnsupportedOperationException | DeviceException e) {
      throw new ConfigException("engine.device is " + engine.device() + ": " + e.getMessage(), e);
    } catch (InvalidCheckpointException e) {
      throw new ConfigException(
          "cannot serve the checkpoint in " + folder + ": " + Failures.describe(e), e);
    } catch (IOException e) {
      throw new Failures.CommandFailedException(
          "cannot read the checkpoint in " + folder + ": " + Failures.describe(e), e);
    }
  }
}
