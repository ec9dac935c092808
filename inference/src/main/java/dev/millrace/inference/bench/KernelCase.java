package dev.millrace.inference.bench;

import dev.millrace.inference.backend.Backend;
import java.util.function.IntConsumer;

/**
 * An operation of a backend at a shape.
 *
 * @param operation its name in {@link Backend}
 * @param shape for people
 */
public record KernelCase(String operation, String shape, Factory factory) {

  /** Makes the buffers of an operation. */
  @FunctionalInterface
  interface Factory {
    /**
     * @param sets of buffers to make, used in turn
     */
    Prepared prepare(Backend backend, int sets);
  }

  /**
   * An operation with its buffers.
   *
   * @param work what one call must do
   * @param call with the number of the set that it uses
   */
  record Prepared(Roofline.Work work, IntConsumer call) {}

  Prepared prepare(Backend backend, int sets) {
    return factory.prepare(backend, sets);
  }

  /** What a set takes, about: the bytes that one call moves. */
  double setBytes(Backend backend) {
    return factory.prepare(backend, 1).work().bytes();
  }
}
