package dev.millrace.inference.model;

import dev.millrace.inference.backend.Backend;
import dev.millrace.inference.checkpoint.Checkpoint;
import dev.millrace.inference.checkpoint.ModelConfig;
import dev.millrace.inference.checkpoint.WeightFormat;
import java.nio.file.Path;
import java.util.List;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/** From a checkpoint folder to a network: one line an architecture. */
public final class Models {
  private static final Logger LOG = LoggerFactory.getLogger(Models.class);

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
        Checkpoint checkpoint = Checkpoint.open(folder);
        WeightSource weights =
            new CheckpointWeights(checkpoint, config.quantization(), precision, backend);
        List<String> unscaled = checkpoint.withoutKvScale();
        if (config.quantization().keysAndValues() && !unscaled.isEmpty()) {
          LOG.warn(
              "{} asks for FP8 keys and values, but {} of their projections have no scale for them"
                  + " (the first is {}): those are not scaled, which is 1.0",
              folder,
              unscaled.size(),
              unscaled.getFirst());
        }
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
