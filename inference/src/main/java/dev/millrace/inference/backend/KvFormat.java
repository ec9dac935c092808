package dev.millrace.inference.backend;

/** What a cache keeps of keys and values. */
public enum KvFormat {
  /** What the backend computes with: it loses nothing that was there. */
  NATIVE,
  /** e4m3, each layer with its {@link KvScale}. */
  FP8
}
