package dev.millrace.inference.engine;

import dev.millrace.inference.sampling.SamplingState;

/**
 * The work of one step as flat arrays: the only thing that crosses from bookkeeping to arithmetic.
 * There is no phase: a decode is a query of length 1, a prefill a longer one, and both stand side
 * by side. Arrays may be longer than what is used; the counts say how much is. The engine thread
 * fills it, then it belongs to the {@link Runner} until the step's result was awaited; the engine
 * keeps one more than the runner's depth and reuses them.
 */
public final class Batch {
  /** Sequences in this step. */
  public int sequences;

  /** Query tokens in this step, over all sequences. */
  public int tokenCount;

  /** [tokenCount] token ids; meaningless where {@link #tokenFrom} is not -1. */
  public int[] tokens;

  /**
   * [tokenCount] index into the previous step's sampled tokens (its logit rows) that supplies the
   * token, or -1.
   */
  public int[] tokenFrom;

  /** [tokenCount] position of the token in its sequence, from 0. */
  public int[] positions;

  /** [tokenCount] where its key and value go: block · blockSize + offset. */
  public int[] slots;

  /** [sequences + 1] first query token of each sequence; the last entry is {@link #tokenCount}. */
  public int[] queryStart;

  /** [sequences] tokens of the sequence up to and including this step's last one. */
  public int[] contextLength;

  /**
   * [sequences · maxBlocks] block ids, row by row; only those that contextLength covers are valid.
   */
  public int[] blockTable;

  /** Row length of {@link #blockTable}; each step has its own, which its longest row fits into. */
  public int maxBlocks;

  /** Rows of which logits are computed and a token is sampled. */
  public int logitCount;

  /** [logitCount] query token whose logits are wanted, ascending. */
  public int[] logitRows;

  /** [logitCount] how the row's token is drawn; also the history that penalties need. */
  public SamplingState[] sampling;

  /** Whether every sequence has one query token, and wants its logits. */
  public boolean isDecode() {
    return tokenCount == sequences && logitCount == sequences && sequences > 0;
  }

  public Batch(int maxSequences, int maxTokens, int maxBlocks) {
    this.tokens = new int[maxTokens];
    this.tokenFrom = new int[maxTokens];
    this.positions = new int[maxTokens];
    this.slots = new int[maxTokens];
    this.queryStart = new int[maxSequences + 1];
    this.contextLength = new int[maxSequences];
    this.blockTable = new int[Math.multiplyExact(maxSequences, maxBlocks)];
    this.maxBlocks = maxBlocks;
    this.logitRows = new int[maxSequences];
    this.sampling = new SamplingState[maxSequences];
  }
}
