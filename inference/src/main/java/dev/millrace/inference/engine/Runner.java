package dev.millrace.inference.engine;

/**
 * Runs batches on a device. Called by the engine thread alone; whoever made it closes it, after the
 * engine.
 */
public interface Runner extends AutoCloseable {

  /**
   * What the runner holds and allows.
   *
   * @param vocabSize rows of the logits
   * @param maxContext most tokens of a sequence
   * @param blockSize tokens a KV block
   * @param blocks KV blocks there are; block ids are 0 to blocks - 1
   * @param depth steps that may be in flight at once, 1 or 2
   */
  record Info(int vocabSize, int maxContext, int blockSize, int blocks, int depth) {}

  Info info();

  /**
   * Starts a step and returns at once. Steps run in the order of submission. A step may take tokens
   * from the step before it ({@link Batch#tokenFrom}), which need not have ended.
   *
   * @throws IllegalStateException if {@code depth} steps are in flight already
   */
  StepHandle submit(Batch batch);

  /**
   * Time that the device has spent on steps so far, in nanoseconds; -1 if this runner does not
   * measure it. Thread-safe.
   */
  default long busyNanos() {
    return -1;
  }

  @Override
  void close();
}
