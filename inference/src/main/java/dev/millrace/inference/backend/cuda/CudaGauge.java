package dev.millrace.inference.backend.cuda;

import dev.millrace.inference.backend.DeviceException;
import dev.millrace.inference.backend.Gauge;
import dev.millrace.inference.checkpoint.WeightFormat;
import dev.millrace.kernels.ConvertKernels;
import dev.millrace.kernels.CublasLt;
import dev.millrace.kernels.Event;
import dev.millrace.kernels.Rows;
import dev.millrace.kernels.Stream;
import java.util.function.LongSupplier;

/**
 * What the GPU does at most: memory by a copy, whose bytes count read and written; arithmetic by a
 * large product of random numbers.
 */
final class CudaGauge implements Gauge {
  /** Far more than the cache holds. */
  static final long BYTES = 1L << 30;

  private static final int INPUTS = 4096;
  private static final int MOST_SIDE = 8192;
  private static final int WARM_UPS = 2;
  private static final int REPEATS = 5;

  private final GpuMemory memory;
  private final CublasLt products;
  private final ConvertKernels converts;
  private final CudaFp8 fp8;
  private final Stream stream;
  private final long bytes;
  private final LongSupplier place;
  private final boolean free;

  /**
   * @param bytes to work in
   * @param place where they are, taken for each measurement
   * @param free whether to free them after it
   */
  CudaGauge(
      GpuMemory memory,
      CublasLt products,
      ConvertKernels converts,
      CudaFp8 fp8,
      Stream stream,
      long bytes,
      LongSupplier place,
      boolean free) {
    this.memory = memory;
    this.products = products;
    this.converts = converts;
    this.fp8 = fp8;
    this.stream = stream;
    this.bytes = Math.min(bytes, BYTES);
    this.place = place;
    this.free = free;
    if (this.bytes < BYTES / 8) {
      throw new DeviceException(
          "a measurement needs %s, there are %s"
              .formatted(DeviceArena.size(BYTES / 8), DeviceArena.size(bytes)));
    }
  }

  private interface Measurement {
    double at(long address);
  }

  private double measure(Measurement measurement) {
    long address = place.getAsLong();
    try {
      return measurement.at(address);
    } finally {
      if (free) {
        memory.free(address);
      }
    }
  }

  @Override
  public double readBytesPerSecond() {
    long half = bytes / 2 / DeviceArena.ALIGNMENT * DeviceArena.ALIGNMENT;
    return measure(
        address -> {
          converts.random(address, half / Short.BYTES, 1, 1, stream);
          return 2
              * half
              * 1e9
              / best(() -> memory.block().copy(address + half, address, half, stream));
        });
  }

  /** Of FP8, or of bfloat16, to which weights of every other format are widened or rounded. */
  @Override
  public double flopsPerSecond(WeightFormat format) {
    boolean e4m3 = format == WeightFormat.F8_E4M3 && fp8.multiplies(MOST_SIDE, INPUTS);
    // A weight and an input of the same size, and what comes of them.
    int side = (int) Math.min(MOST_SIDE, bytes / (4L * INPUTS * Short.BYTES) / 128 * 128);
    return measure(
        address -> {
          long input = address + (long) side * INPUTS * Short.BYTES;
          long out = input + (long) side * INPUTS * Short.BYTES;
          Rows x = new Rows(input, INPUTS);
          Rows to = new Rows(out, side);
          CublasLt.Output bf16 = CublasLt.Output.BF16;
          Runnable product;
          if (e4m3) {
            fp8.kernels().random(address, 4L * side * INPUTS, 1, stream);
            product =
                () -> products.multiplyFp8(x, side, address, side, INPUTS, to, bf16, 1e-4f, stream);
          } else {
            converts.random(address, 2L * side * INPUTS, 1, 1, stream);
            product = () -> products.multiply(x, side, address, side, INPUTS, to, bf16, stream);
          }
          long took = best(product);
          return 2.0 * side * side * INPUTS * 1e9 / took;
        });
  }

  private long best(Runnable work) {
    long best = Long.MAX_VALUE;
    for (int i = 0; i < WARM_UPS + REPEATS; i++) {
      long took = nanos(work);
      best = i < WARM_UPS ? best : Math.min(best, took);
    }
    return best;
  }

  @Override
  public long nanos(Runnable work) {
    try (Event start = Event.timing();
        Event end = Event.timing()) {
      start.record(stream);
      work.run();
      end.record(stream);
      end.synchronize();
      return Math.max(1, (long) (start.millisTo(end) * 1e6));
    }
  }
}
