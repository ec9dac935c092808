package dev.millrace.inference.backend.cpu;

/**
 * Every sum here is made of fused multiply-adds. Java computes them exactly on any processor, but
 * where the processor has no instruction for it a thousand times slower, which no one would want.
 */
final class FusedMultiplyAdd {
  private static final int COUNT = 2_000;
  private static final long MOST_NANOS_EACH = 400;

  private FusedMultiplyAdd() {}

  /**
   * @throws UnsupportedOperationException if the processor has no such instruction
   */
  static void require() {
    long best = Long.MAX_VALUE;
    for (int i = 0; i < 20; i++) {
      best = Math.min(best, nanos());
    }
    if (best > COUNT * MOST_NANOS_EACH) {
      throw new UnsupportedOperationException(
          "this processor has no fused multiply-add, which the CPU backend needs: use an x86-64-v3"
              + " (2013 or later) or ARMv8 machine, and do not run Java with -XX:-UseFMA");
    }
  }

  private static long nanos() {
    long start = System.nanoTime();
    float x = 1;
    for (int i = 0; i < COUNT; i++) {
      x = Math.fma(x, 0.9f, 0.1f);
    }
    // Reading x keeps the loop.
    return x > 2 ? Long.MAX_VALUE : System.nanoTime() - start;
  }
}
