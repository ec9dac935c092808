package dev.millrace.inference.bench;

import dev.millrace.inference.engine.Batch;
import dev.millrace.inference.engine.Runner;
import dev.millrace.inference.engine.StepFailedException;
import dev.millrace.inference.engine.StepHandle;
import dev.millrace.inference.model.ModelRunner;

/**
 * A runner between an engine and another runner, which it leaves open when it is closed: sums up
 * what the steps had to do at the least, and how long they and the host took. Used by the engine's
 * thread; its results are read once the engine is closed.
 */
final class Meter implements Runner {
  private static final int STEPS = 1 << 16;

  private final Runner runner;
  private final Roofline roofline;
  private final Ceilings ceilings;
  private final Samples steps = new Samples(STEPS);
  private final Samples host = new Samples(STEPS);

  /** Where the engine's thread says that it counts now. */
  private volatile boolean counting;

  private long lastEnd;
  private long stepEnd;
  private double boundSeconds;
  private double bytes;
  private double flops;
  private double memoryBoundSeconds;

  Meter(ModelRunner runner, Ceilings ceilings) {
    this(runner, new Roofline(runner.config(), runner.footprint()), ceilings);
  }

  private Meter(Runner runner, Roofline roofline, Ceilings ceilings) {
    this.runner = runner;
    this.roofline = roofline;
    this.ceilings = ceilings;
  }

  /** Counts from the next step on; what ran before it does not matter. */
  void begin() {
    counting = true;
  }

  /** Counts no further step. */
  void end() {
    counting = false;
  }

  @Override
  public Info info() {
    return runner.info();
  }

  @Override
  public long busyNanos() {
    return runner.busyNanos();
  }

  @Override
  public StepHandle submit(Batch batch) {
    if (counting) {
      Roofline.Work work = roofline.of(batch);
      double seconds = work.seconds(ceilings.readBytes(), ceilings.flops());
      boundSeconds += seconds;
      bytes += work.bytes();
      flops += work.flops();
      if (work.bytes() / ceilings.readBytes() >= seconds) {
        memoryBoundSeconds += seconds;
      }
    }
    StepHandle handle = runner.submit(batch);
    return () -> await(handle);
  }

  private StepHandle.Result await(StepHandle handle) throws StepFailedException {
    long start = System.nanoTime();
    StepHandle.Result result = handle.await();
    long end = System.nanoTime();
    if (counting && lastEnd != 0) {
      host.add(start - lastEnd);
      steps.add(end - lastEnd);
    }
    lastEnd = counting ? end : 0;
    stepEnd = end;
    return result;
  }

  /** {@link System#nanoTime()} of when the last step ended: its tokens came then. */
  long stepEnd() {
    return stepEnd;
  }

  /** From the end of a step to the end of the next. */
  Samples.Summary stepTimes() {
    return steps.summary();
  }

  /** What the engine's thread does between two waits for a step. */
  Samples.Summary hostTimes() {
    return host.summary();
  }

  /** The least time that all counted steps could take. */
  double boundSeconds() {
    return boundSeconds;
  }

  /** The part of it in steps that memory bounds. */
  double memoryBoundSeconds() {
    return memoryBoundSeconds;
  }

  Roofline.Work work() {
    return new Roofline.Work(bytes, flops);
  }

  /** Nothing: the runner is not this one's. */
  @Override
  public void close() {}
}
