package dev.millrace.kernels;

/** What a kernel's tensors hold. */
public enum ElementType {
  F32("f32", Float.BYTES),
  BF16("bf16", Short.BYTES);

  private final String suffix;
  private final int bytes;

  ElementType(String suffix, int bytes) {
    this.suffix = suffix;
    this.bytes = bytes;
  }

  /** Bytes of one element. */
  public int bytes() {
    return bytes;
  }

  /** The name of a kernel's variant for this type. */
  String variant(String kernel) {
    return kernel + "_" + suffix;
  }
}
