package dev.millrace.inference.backend;

import java.util.List;

/**
 * A network all of whose blocks are attention and then a SwiGLU, without biases. A {@link
 * WholeNetwork} is made of it.
 *
 * @param heads of queries, in each block
 * @param norm before the output matrix
 * @param epsilon of all norms
 */
public record UniformNetwork(
    List<Block> blocks, int heads, Rotary rotary, Tensor norm, Weight output, float epsilon) {
  /** A block. */
  public record Block(Attention attention, FeedForward feedForward) {}

  /** Its attention; keys and values are in the layer of the cache that has the block's index. */
  public record Attention(Tensor norm, Weight q, Weight k, Weight v, Weight o) {}

  /** Its feed-forward network: {@code down · (silu(gate · x) · up · x)}. */
  public record FeedForward(Tensor norm, Weight gate, Weight up, Weight down) {}
}
