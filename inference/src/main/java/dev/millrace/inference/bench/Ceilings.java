package dev.millrace.inference.bench;

import dev.millrace.inference.backend.Gauge;
import dev.millrace.inference.checkpoint.WeightFormat;

/**
 * What a device can do at most, as measured.
 *
 * @param readBytes a second, from memory that no cache holds
 * @param flops a second, a multiply-add counting as two
 */
public record Ceilings(double readBytes, double flops) {
  /** Takes some seconds. */
  public static Ceilings measure(Gauge gauge, WeightFormat format) {
    return new Ceilings(gauge.readBytesPerSecond(), gauge.flopsPerSecond(format));
  }
}
