package dev.millrace.inference.model;

import dev.millrace.inference.backend.Backend;
import dev.millrace.inference.checkpoint.Checkpoint;
import dev.millrace.inference.checkpoint.ModelConfig;
import dev.millrace.inference.checkpoint.WeightFormat;
import java.nio.file.Path;

/** From a checkpoint folder to a network: one line an architecture. */
public final class Models {
  private Models() {}

  /**
   * Loads the model of a folder.
   *
   * @throws dev.millrace.inference.checkpoint.InvalidCheckpointException if the checkpoint is
   *     damaged, incomplete or of a kind that is not supported
   */
  public static Model load(Path folder, Backend backend) {
    return load(new ModelSource.Folder(folder), backend);
  }

  /** As {@link #load(Path, Backend)}, of any source. */
  public static Model load(ModelSource source, Backend backend) {
    return switch (source) {
      case ModelSource.Folder(Path folder, Precision precision) -> {
        ModelConfig config = ModelConfig.read(folder);
        WeightSource weights =
            new CheckpointWeights(
                Checkpoint.open(folder), config.quantization(), precision, backend);
        yield load(config, weights, backend);
      }
      case ModelSource.Random(Path file, WeightFormat format, long seed) ->
          load(ModelConfig.readFile(file), new RandomWeights(seed, format, backend), backend);
    };
  }

  private static Model load(ModelConfig config, WeightSource weights, Backend backend) {
    try {
      return switch (config.architecture()) {
        // Both are one network, of different blocks.
        case "LlamaForCausalLM", "DeciLMForCausalLM" -> new LlamaModel(config, weights, backend);
        default -> throw new IllegalStateException("no network for " + config.architecture());
      };
    } catch (RuntimeException | Error e) {
      weights.close();
      throw e;
    }
  }
}
