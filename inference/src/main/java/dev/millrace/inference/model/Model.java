package dev.millrace.inference.model;

import dev.millrace.inference.backend.KvCache;
import dev.millrace.inference.backend.KvFormat;
import dev.millrace.inference.backend.Step;
import dev.millrace.inference.backend.Tensor;
import dev.millrace.inference.checkpoint.ModelConfig;

/**
 * A network with its weights on a backend. One thread runs it. Whoever loads it closes it, after
 * its last step and after the backend.
 */
public interface Model extends AutoCloseable {
  ModelConfig config();

  /**
   * A cache for this network's layers, with the scales of its checkpoint where it is FP8.
   *
   * @throws UnsupportedOperationException if the backend has no cache of that format
   */
  KvCache kvCache(int blocks, KvFormat format);

  /** As {@link #kvCache(int, KvFormat)}, as the backend computes. */
  default KvCache kvCache(int blocks) {
    return kvCache(blocks, KvFormat.NATIVE);
  }

  /** What a step must read of the weights and of this cache. */
  Footprint footprint(KvCache cache);

  /** Takes the memory that steps of up to so many tokens and logit rows need. */
  void reserve(int tokens, int logitRows);

  /**
   * Computes a step and stores its keys and values.
   *
   * @return logits [logit rows, vocabulary]; valid until the next step
   */
  Tensor forward(Step step, KvCache cache);

  @Override
  void close();
}
