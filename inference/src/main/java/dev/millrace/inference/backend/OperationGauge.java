package dev.millrace.inference.backend;

import dev.millrace.inference.checkpoint.WeightFormat;
import java.util.ArrayList;
import java.util.List;

/**
 * Asks a backend's own matrix product: how fast it reads weights for one row, and how fast it
 * multiplies many. That is a lower bound of what the device can do.
 */
final class OperationGauge implements Gauge {
  private static final int COLUMNS = 4096;
  private static final int ROWS = 16_384;

  /** 1 GiB of bf16 weights: more than caches hold. */
  private static final int MATRICES = 8;

  private static final int BATCH = 1024;
  private static final int REPEATS = 3;

  private final Backend backend;

  OperationGauge(Backend backend) {
    this.backend = backend;
  }

  @Override
  public double readBytesPerSecond() {
    List<Weight> weights = weights(WeightFormat.BF16, MATRICES);
    double bytes = (double) MATRICES * WeightFormat.BF16.bytes((long) ROWS * COLUMNS);
    return bytes / multiply(weights, 1) * 1e9;
  }

  @Override
  public double flopsPerSecond(WeightFormat format) {
    return 2.0 * BATCH * ROWS * COLUMNS / multiply(weights(format, 1), BATCH) * 1e9;
  }

  private List<Weight> weights(WeightFormat format, int count) {
    List<Weight> weights = new ArrayList<>();
    for (int i = 0; i < count; i++) {
      weights.add(backend.randomWeight(ROWS, COLUMNS, format, 0.03f, i));
    }
    return weights;
  }

  /** Nanoseconds of one product with each of the weights; best of some, after one that warms up. */
  private long multiply(List<Weight> weights, int rows) {
    Tensor x = backend.tensor(rows, COLUMNS);
    Tensor out = backend.tensor(rows, ROWS);
    x.fromHost(RandomNumbers.vector(rows * COLUMNS, 1));
    long best = Long.MAX_VALUE;
    for (int i = 0; i <= REPEATS; i++) {
      long took = nanos(() -> weights.forEach(w -> backend.linear(x, rows, w, null, out)));
      best = i == 0 ? best : Math.min(best, took);
    }
    backend.free(x);
    backend.free(out);
    return best;
  }

  @Override
  public long nanos(Runnable work) {
    backend.await();
    long start = System.nanoTime();
    work.run();
    backend.await();
    return Math.max(1, System.nanoTime() - start);
  }
}
