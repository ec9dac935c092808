package dev.millrace.inference.backend.cuda;

import dev.millrace.inference.checkpoint.WeightFormat;
import dev.millrace.inference.model.ModelSource;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;

/** Networks with made-up weights for tests on a GPU. */
public final class Shapes {
  private static final int EMULATED_HEAD_DIM = 16;
  private static final int GROUP = 4;

  private Shapes() {}

  /**
   * Two blocks, wide enough that a library would split the sums of a product of few rows; on an
   * emulated GPU, which takes a second for what a card does at once, narrow ones.
   *
   * @param folder takes the {@code config.json}
   * @param headDim 128: as wide as a network of eight billion numbers; else a quarter of that
   */
  public static ModelSource wide(Path folder, WeightFormat format, int headDim) throws IOException {
    boolean emulated = Gpu.emulated();
    int dim = emulated ? EMULATED_HEAD_DIM : headDim;
    int kvHeads = dim == 128 ? 8 : 4;
    int heads = kvHeads * GROUP;
    int inner = emulated ? 64 : dim == 128 ? 14_336 : 8192;
    Path file = folder.resolve("config.json");
    Files.writeString(
        file,
        """
        {"architectures": ["LlamaForCausalLM"], "vocab_size": 96, "hidden_size": %d,
         "num_attention_heads": %d, "num_key_value_heads": %d, "head_dim": %d,
         "intermediate_size": %d, "num_hidden_layers": 2, "max_position_embeddings": 1024,
         "rms_norm_eps": 1e-5, "rope_theta": 500000, "tie_word_embeddings": false}
        """
            .formatted(heads * dim, heads, kvHeads, dim, inner));
    return new ModelSource.Random(file, format, 7);
  }

  /** Tokens that these networks know. */
  public static int vocabulary() {
    return 96;
  }
}
