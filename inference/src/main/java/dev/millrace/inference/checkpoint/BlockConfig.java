package dev.millrace.inference.checkpoint;

/**
 * One block of the network: attention, then a feed-forward part. Of a part that is absent neither
 * its norm nor its residual connection exists. A linear part is one matrix over the normed input,
 * [hidden, hidden].
 */
public record BlockConfig(Attention attention, FeedForward feedForward) {

  /** First half of a block. */
  public sealed interface Attention {
    /**
     * Attention over the sequence.
     *
     * @param kvHeads heads of keys and values; divides the query heads
     * @param bias whether its four projections add a bias
     */
    record Heads(int kvHeads, boolean bias) implements Attention {}

    /** A matrix in its place. */
    record Linear() implements Attention {}

    /** Nothing. */
    record Absent() implements Attention {}
  }

  /** Second half of a block. */
  public sealed interface FeedForward {
    /**
     * {@code down(silu(gate(x)) · up(x))}.
     *
     * @param width rows of gate and up
     * @param bias whether its three projections add a bias
     */
    record SwiGlu(int width, boolean bias) implements FeedForward {}

    /** A matrix in its place. */
    record Linear() implements FeedForward {}

    /** Nothing. */
    record Absent() implements FeedForward {}
  }

  /** KV heads, 0 where the block keeps no keys and values. */
  public int kvHeads() {
    return attention instanceof Attention.Heads heads ? heads.kvHeads() : 0;
  }
}
