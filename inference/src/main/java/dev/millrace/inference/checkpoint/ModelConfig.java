package dev.millrace.inference.checkpoint;

import java.nio.file.Path;
import java.util.List;

/**
 * What a checkpoint says of its model, checked.
 *
 * @param architecture {@code LlamaForCausalLM} or {@code DeciLMForCausalLM}
 * @param hiddenSize numbers a token's state has between blocks
 * @param heads query heads of every block with attention
 * @param headDim numbers a head has; heads · headDim need not be hiddenSize
 * @param maxContext most tokens of a sequence
 * @param tiedEmbeddings the output layer is the embedding table
 * @param tokens ids with a meaning of their own
 * @param quantization how the weights were quantised
 */
public record ModelConfig(
    String architecture,
    int vocabSize,
    int hiddenSize,
    int heads,
    int headDim,
    int maxContext,
    float rmsNormEps,
    boolean tiedEmbeddings,
    RopeConfig rope,
    List<BlockConfig> blocks,
    SpecialTokens tokens,
    QuantizationConfig quantization) {
  public ModelConfig {
    blocks = List.copyOf(blocks);
  }

  /** KV heads of each block, in order; 0 where a block has no attention. */
  public List<Integer> kvHeads() {
    return blocks.stream().map(BlockConfig::kvHeads).toList();
  }

  /**
   * Token ids that the checkpoint names.
   *
   * @param bos begin of text, or -1
   * @param eos ids that end an answer: those of generation_config.json and of config.json, each
   *     once, in this order; may be empty
   */
  public record SpecialTokens(int bos, List<Integer> eos) {
    public SpecialTokens {
      eos = List.copyOf(eos);
    }

    /** {@link #eos()} as an array of its own. */
    public int[] eosIds() {
      return eos.stream().mapToInt(Integer::intValue).toArray();
    }
  }

  /**
   * Reads {@code config.json} and, where there are, {@code generation_config.json} and {@code
   * hf_quant_config.json}.
   *
   * @throws InvalidCheckpointException if something is missing, malformed or not supported
   */
  public static ModelConfig read(Path folder) {
    return new ModelConfigReader(folder.resolve("config.json")).read();
  }

  /**
   * As {@link #read}, where {@code config.json} goes by another name.
   *
   * @param file of that content; the others are looked for beside it
   */
  public static ModelConfig readFile(Path file) {
    return new ModelConfigReader(file).read();
  }
}
