package dev.millrace.inference.backend;

import dev.millrace.inference.checkpoint.WeightFormat;

/**
 * What a device can do at most, measured on it, so that a benchmark can say what share of that it
 * reached. Used by the thread that runs the backend's operations, while no step is in flight. Each
 * call measures anew and takes about a second.
 */
public interface Gauge {

  /** Bytes a second that the device reads from memory that no cache holds. */
  double readBytesPerSecond();

  /**
   * Floating-point operations a second, a multiply-add counting as two, of the unit that multiplies
   * weights of this format.
   */
  double flopsPerSecond(WeightFormat format);

  /**
   * How long the device takes for work that is started by {@code work}, in nanoseconds: from the
   * moment that everything before it has ended until everything it started has.
   */
  long nanos(Runnable work);
}
