package dev.millrace.inference.bench;

import dev.millrace.inference.backend.Backend;
import dev.millrace.inference.backend.Gauge;
import java.util.List;
import java.util.function.Consumer;
import java.util.function.Supplier;

/**
 * Times a backend's operations one by one. Each has as many sets of buffers as no cache holds and
 * uses them in turn, so that every call reads from memory. Each gets a backend of its own, which
 * frees all that it needed. For one thread.
 */
public final class KernelBench {
  private static final int WARM_UPS = 2;
  private static final int LEAST_PASSES = 3;
  private static final int MOST_SETS = 4096;

  private final Supplier<Backend> backends;
  private final Ceilings ceilings;
  private final long rotateBytes;
  private final double seconds;

  /**
   * @param backends opens one; each is closed here
   * @param rotateBytes that the buffers of an operation take together, at least
   * @param seconds that each operation is repeated for, at least
   */
  public KernelBench(
      Supplier<Backend> backends, Ceilings ceilings, long rotateBytes, double seconds) {
    this.backends = backends;
    this.ceilings = ceilings;
    this.rotateBytes = rotateBytes;
    this.seconds = seconds;
  }

  /**
   * What an operation came to.
   *
   * @param which operation at which shape
   * @param work what one call must read, write and compute
   * @param seconds of one call, the median
   */
  public record Result(KernelCase which, Roofline.Work work, double seconds, Ceilings ceilings) {
    /** Bytes a second. */
    public double bytesPerSecond() {
      return work.bytes() / seconds;
    }

    /** Operations a second. */
    public double flopsPerSecond() {
      return work.flops() / seconds;
    }

    /** Whether memory bounds it rather than arithmetic. */
    public boolean memoryBound() {
      return work.bytes() / ceilings.readBytes() >= work.flops() / ceilings.flops();
    }

    /** The least time it could take, over the time it took. */
    public double ofCeiling() {
      return work.seconds(ceilings.readBytes(), ceilings.flops()) / seconds;
    }
  }

  /** Times each, one after another. */
  public void run(List<KernelCase> cases, Consumer<Result> results) {
    for (KernelCase which : cases) {
      try (Backend backend = backends.get()) {
        results.accept(run(which, backend));
      }
    }
  }

  private Result run(KernelCase which, Backend backend) {
    int sets = sets(which.setBytes(backend));
    KernelCase.Prepared prepared = which.prepare(backend, sets);
    Gauge gauge = backend.gauge();
    Runnable pass =
        () -> {
          for (int i = 0; i < sets; i++) {
            prepared.call().accept(i);
          }
        };
    for (int i = 0; i < WARM_UPS; i++) {
      pass.run();
    }
    backend.await();
    Samples passes = new Samples(1024);
    long total = 0;
    for (int i = 0; i < LEAST_PASSES || total < seconds * 1e9; i++) {
      long took = gauge.nanos(pass);
      passes.add(took);
      total += took;
    }
    return new Result(which, prepared.work(), passes.summary().p50() / 1e3 / sets, ceilings);
  }

  /** How many sets of buffers no cache holds; at least two. */
  int sets(double bytes) {
    return (int) Math.clamp(Math.ceil(rotateBytes / Math.max(1, bytes)), 2, MOST_SETS);
  }
}
