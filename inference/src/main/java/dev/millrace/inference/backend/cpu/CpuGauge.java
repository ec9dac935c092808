package dev.millrace.inference.backend.cpu;

import dev.millrace.inference.backend.Gauge;
import dev.millrace.inference.checkpoint.WeightFormat;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import jdk.incubator.vector.FloatVector;
import jdk.incubator.vector.IntVector;
import jdk.incubator.vector.VectorOperators;

/**
 * What the machine can do with all of a backend's threads: a loop that does nothing but read, and
 * one that does nothing but multiply and add between registers. Weights of every format are widened
 * to float32 and multiplied as such, so that there is one peak for all.
 */
final class CpuGauge implements Gauge {
  /** Far more than any cache holds. */
  static final long READ_BYTES = 1L << 30;

  static final int MULTIPLIES = 1_000_000;

  /** Independent sums of {@link #multiply}. */
  static final int CHAINS = 10;

  private static final int WARM_UPS = 3;
  private static final int REPEATS = 5;

  private final Workers workers;
  // A cache line for each worker.
  private final long[] found;

  CpuGauge(Workers workers) {
    this.workers = workers;
    this.found = new long[workers.count() * 8];
  }

  @Override
  public double readBytesPerSecond() {
    try (Arena arena = Arena.ofShared()) {
      MemorySegment buffer = arena.allocate(READ_BYTES, 64);
      buffer.fill((byte) 1);
      return READ_BYTES * 1e9 / best(() -> read(workers, buffer, found));
    }
  }

  @Override
  public double flopsPerSecond(WeightFormat format) {
    return flops(workers.count()) * 1e9 / best(() -> multiply(workers, found));
  }

  @Override
  public long nanos(Runnable work) {
    long start = System.nanoTime();
    work.run();
    return Math.max(1, System.nanoTime() - start);
  }

  private long best(Runnable work) {
    long best = Long.MAX_VALUE;
    for (int i = 0; i < WARM_UPS + REPEATS; i++) {
      long took = nanos(work);
      best = i < WARM_UPS ? best : Math.min(best, took);
    }
    return best;
  }

  /** Floating-point operations of {@link #multiply(Workers, long[])}. */
  static double flops(int threads) {
    return 2.0 * threads * MULTIPLIES * CHAINS * VectorLanes.WIDTH;
  }

  /** Every byte of the buffer once, by all threads. */
  static long read(Workers workers, MemorySegment buffer, long[] found) {
    workers.run(
        (worker, count) -> {
          long part = buffer.byteSize() / count / 256 * 256;
          found[worker * 8] = xor(buffer, worker * part, part);
        });
    return found[0];
  }

  private static long xor(MemorySegment from, long at, long bytes) {
    IntVector a = IntVector.zero(VectorLanes.INTS);
    IntVector b = a;
    IntVector c = a;
    IntVector d = a;
    int step = 4 * VectorLanes.WIDTH;
    for (long i = at; i < at + bytes; i += step * 4L) {
      a = a.lanewise(VectorOperators.XOR, VectorLanes.loadInts(from, i));
      b = b.lanewise(VectorOperators.XOR, VectorLanes.loadInts(from, i + step));
      c = c.lanewise(VectorOperators.XOR, VectorLanes.loadInts(from, i + 2L * step));
      d = d.lanewise(VectorOperators.XOR, VectorLanes.loadInts(from, i + 3L * step));
    }
    return a.lanewise(VectorOperators.XOR, b)
        .lanewise(VectorOperators.XOR, c.lanewise(VectorOperators.XOR, d))
        .reduceLanes(VectorOperators.XOR);
  }

  /** Multiply-adds between registers, by all threads. */
  static long multiply(Workers workers, long[] found) {
    workers.run((worker, count) -> found[worker * 8] = Float.floatToIntBits(multiply(MULTIPLIES)));
    return found[0];
  }

  /** Independent chains, enough to hide the latency of each. */
  private static float multiply(int count) {
    FloatVector x = FloatVector.broadcast(VectorLanes.FLOATS, 0.999f);
    FloatVector a0 = x;
    FloatVector a1 = x.add(1f);
    FloatVector a2 = x.add(2f);
    FloatVector a3 = x.add(3f);
    FloatVector a4 = x.add(4f);
    FloatVector a5 = x.add(5f);
    FloatVector a6 = x.add(6f);
    FloatVector a7 = x.add(7f);
    FloatVector a8 = x.add(8f);
    FloatVector a9 = x.add(9f);
    for (int i = 0; i < count; i++) {
      a0 = a0.fma(x, x);
      a1 = a1.fma(x, x);
      a2 = a2.fma(x, x);
      a3 = a3.fma(x, x);
      a4 = a4.fma(x, x);
      a5 = a5.fma(x, x);
      a6 = a6.fma(x, x);
      a7 = a7.fma(x, x);
      a8 = a8.fma(x, x);
      a9 = a9.fma(x, x);
    }
    return a0.add(a1).add(a2).add(a3).add(a4).add(a5).add(a6).add(a7).add(a8).add(a9).lane(0);
  }
}
