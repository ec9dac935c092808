package dev.millrace.inference.bench;

import dev.millrace.inference.checkpoint.BlockConfig;
import dev.millrace.inference.checkpoint.ModelConfig;
import dev.millrace.inference.engine.Batch;
import dev.millrace.inference.model.Footprint;

/**
 * The least time that a step can take on a device of a given bandwidth and a given rate of
 * arithmetic: whichever takes longer of
 *
 * <ul>
 *   <li>reading what must be read once: the matrices of all blocks, the output layer if there are
 *       logits, the rows of the embedding table, and keys and values of each sequence up to and
 *       with this step's, which are also written once;
 *   <li>computing what must be computed: two operations for each weight and token, for each output
 *       weight and row of logits, and four for each query head, number of a head, query token and
 *       position that the token looks at, in each layer with attention.
 * </ul>
 *
 * Norms, activations and sampling are left out: they are small, and can be part of the rest.
 */
public final class Roofline {
  private final Footprint footprint;
  private final double embeddingRowBytes;
  private final double attentionFlops;

  /** Of a network. */
  public Roofline(ModelConfig config, Footprint footprint) {
    this.footprint = footprint;
    this.embeddingRowBytes = (double) footprint.format().bytes(config.hiddenSize());
    long layers = config.blocks().stream().filter(Roofline::attends).count();
    this.attentionFlops = 4.0 * config.heads() * config.headDim() * layers;
  }

  private static boolean attends(BlockConfig block) {
    return block.kvHeads() > 0;
  }

  /**
   * What a step, or several, must do at the least.
   *
   * @param bytes to read and write
   * @param flops to compute
   */
  public record Work(double bytes, double flops) {
    /** Seconds, on a device of these ceilings. */
    public double seconds(double bytesPerSecond, double flopsPerSecond) {
      return Math.max(bytes / bytesPerSecond, flops / flopsPerSecond);
    }
  }

  /** Of one step. */
  public Work of(Batch batch) {
    long held = 0;
    double looks = 0;
    for (int i = 0; i < batch.sequences; i++) {
      long end = batch.contextLength[i];
      long queries = batch.queryStart[i + 1] - batch.queryStart[i];
      held += end;
      // A token at position p looks at p + 1 positions: end - queries + 1 to end.
      looks += queries * (2.0 * end - queries + 1) / 2;
    }
    double tokens = batch.tokenCount;
    double bytes =
        footprint.bodyBytes()
            + (batch.logitCount > 0 ? footprint.outputBytes() : 0)
            + tokens * embeddingRowBytes
            + (held + tokens) * footprint.kvTokenBytes();
    double flops =
        2.0 * footprint.bodyWeights() * tokens
            + 2.0 * footprint.outputWeights() * batch.logitCount
            + attentionFlops * looks;
    return new Work(bytes, flops);
  }
}
