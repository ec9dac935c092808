package dev.millrace.inference.model;

import dev.millrace.inference.backend.Backend;
import dev.millrace.inference.checkpoint.Checkpoint;
import dev.millrace.inference.checkpoint.ModelConfig;
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
    ModelConfig config = ModelConfig.read(folder);
    Checkpoint checkpoint = Checkpoint.open(folder);
    try {
      return switch (config.architecture()) {
        // Both are one network, of different blocks.
        case "LlamaForCausalLM", "DeciLMForCausalLM" -> new LlamaModel(config, checkpoint, backend);
        default -> throw new IllegalStateException("no network for " + config.architecture());
      };
    } catch (RuntimeException | Error e) {
      checkpoint.close();
      throw e;
    }
  }
}
