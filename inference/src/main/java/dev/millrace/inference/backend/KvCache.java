package dev.millrace.inference.backend;

/**
 * Keys and values of all layers, in blocks of {@link #blockSize} tokens. A layer has its own number
 * of KV heads, or none. How a block lies in memory is the backend's business. The handle belongs to
 * the {@link Backend} that made it and goes with it.
 */
public interface KvCache {
  int layers();

  /** KV heads of a layer; 0 where it keeps nothing. */
  int kvHeads(int layer);

  int headDim();

  int blockSize();

  int blocks();

  /** Bytes of keys and values together that a token takes over all layers. */
  long tokenBytes();
}
