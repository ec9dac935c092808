package dev.millrace.inference.backend.cpu;

import com.sun.management.HotSpotDiagnosticMXBean;
import com.sun.management.OperatingSystemMXBean;
import dev.millrace.inference.backend.Gauge;
import dev.millrace.inference.backend.KvCache;
import dev.millrace.inference.backend.Sampled;
import dev.millrace.inference.backend.Step;
import dev.millrace.inference.checkpoint.ModelConfig;
import dev.millrace.inference.engine.Batch;
import dev.millrace.inference.engine.StepFailedException;
import dev.millrace.inference.engine.StepHandle;
import dev.millrace.inference.model.Footprint;
import dev.millrace.inference.model.Model;
import dev.millrace.inference.model.ModelRunner;
import dev.millrace.inference.model.ModelSource;
import dev.millrace.inference.model.Models;
import java.lang.management.ManagementFactory;
import java.nio.file.Path;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.atomic.AtomicInteger;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Runs a checkpoint's steps on the processor. A thread of its own computes them one after another,
 * each with the sampling at its end, so that the caller plans the next step meanwhile. Owns model,
 * backend and mapped files; whoever opens it closes it, after the engine.
 */
public final class CpuRunner implements ModelRunner {
  private static final Logger LOG = LoggerFactory.getLogger(CpuRunner.class);
  private static final int DEPTH = 2;

  /** Sequences of the longest kind that the default cache has room for, memory permitting. */
  private static final int FULL_SEQUENCES = 8;

  private final CpuBackend backend;
  private final Model model;
  private final KvCache cache;
  private final Info info;
  private final ExecutorService thread;
  private final AtomicInteger inFlight = new AtomicInteger();
  // Written by the runner's thread alone.
  private volatile long busyNanos;
  // Of the runner's thread alone: what the step before drew; null after one that failed.
  private @Nullable Sampled previous;

  /**
   * What a runner may use.
   *
   * @param threads that compute, at least 1
   * @param kvBlocks blocks of keys and values; 0: room for eight sequences of the model's longest
   *     context, but at most a quarter of the machine's memory and three quarters of what Java may
   *     reserve outside its heap
   * @param warmUp compute until the kernels are compiled before {@link #open} returns, which takes
   *     a few seconds
   */
  public record Options(int threads, int kvBlocks, boolean warmUp) {
    public Options {
      if (threads < 1) {
        throw new IllegalArgumentException("threads is " + threads + ", it must be 1 or more");
      }
      if (kvBlocks < 0) {
        throw new IllegalArgumentException("kvBlocks is " + kvBlocks + ", it must be 0 or more");
      }
    }

    /** All processors, as many blocks as sensible, warm. */
    public static Options defaults() {
      return new Options(Runtime.getRuntime().availableProcessors(), 0, true);
    }
  }

  /** Tokens a KV block, whatever the model. */
  public static final int BLOCK_SIZE = CpuKvCache.BLOCK;

  /**
   * Opens the folder of a Hugging Face checkpoint.
   *
   * @throws dev.millrace.inference.checkpoint.InvalidCheckpointException if the checkpoint is
   *     damaged, incomplete or of a kind that is not supported
   */
  public static CpuRunner open(Path folder, Options options) {
    return open(new ModelSource.Folder(folder), options);
  }

  /** As {@link #open(Path, Options)}, of any source. */
  public static CpuRunner open(ModelSource source, Options options) {
    CpuBackend backend = new CpuBackend(options.threads());
    Model model = null;
    try {
      model = Models.load(source, backend);
      CpuRunner runner = new CpuRunner(backend, model, options);
      if (options.warmUp()) {
        new WarmUp(runner.info, runner::compute).run();
      }
      LOG.info(
          "Opened {} on {}: context {}, {} KV blocks of {} tokens",
          source,
          backend.describe(),
          runner.info.maxContext(),
          runner.info.blocks(),
          BLOCK_SIZE);
      return runner;
    } catch (RuntimeException | Error e) {
      backend.close();
      if (model != null) {
        model.close();
      }
      throw e;
    }
  }

  private CpuRunner(CpuBackend backend, Model model, Options options) {
    ModelConfig config = model.config();
    int blocks = options.kvBlocks() > 0 ? options.kvBlocks() : defaultBlocks(config);
    this.backend = backend;
    this.model = model;
    this.cache = model.kvCache(blocks);
    this.info =
        new Info(
            config.vocabSize(),
            (int) Math.min(config.maxContext(), (long) blocks * BLOCK_SIZE),
            BLOCK_SIZE,
            blocks,
            DEPTH);
    this.thread =
        Executors.newSingleThreadExecutor(
            Thread.ofPlatform().name("millrace-runner").daemon().factory());
  }

  private static int defaultBlocks(ModelConfig config) {
    List<Integer> kvHeads = config.kvHeads();
    long tokenBytes = 2 * Math.max(1, CpuKvCache.tokenBytes(kvHeads, config.headDim()));
    long memory = Math.min(machineMemory() / 4, reservableMemory() / 4 * 3);
    long fit = memory / (tokenBytes * BLOCK_SIZE);
    long useful = (long) FULL_SEQUENCES * Math.ceilDiv(config.maxContext(), BLOCK_SIZE);
    return (int) Math.clamp(useful, 1, Math.max(1, Math.min(fit, Integer.MAX_VALUE)));
  }

  private static long machineMemory() {
    var system = ManagementFactory.getPlatformMXBean(OperatingSystemMXBean.class);
    return system.getTotalMemorySize();
  }

  /** Memory outside the heap that Java may reserve: as much as the heap unless a flag says more. */
  private static long reservableMemory() {
    var machine = ManagementFactory.getPlatformMXBean(HotSpotDiagnosticMXBean.class);
    long flag = Long.parseLong(machine.getVMOption("MaxDirectMemorySize").getValue());
    return flag > 0 ? flag : Runtime.getRuntime().maxMemory();
  }

  @Override
  public Info info() {
    return info;
  }

  @Override
  public ModelConfig config() {
    return model.config();
  }

  @Override
  public Footprint footprint() {
    return model.footprint(cache);
  }

  @Override
  public Gauge gauge() {
    return backend.gauge();
  }

  @Override
  public String describe() {
    return backend.describe();
  }

  @Override
  public long busyNanos() {
    return busyNanos;
  }

  @Override
  public StepHandle submit(Batch batch) {
    if (inFlight.incrementAndGet() > DEPTH) {
      inFlight.decrementAndGet();
      throw new IllegalStateException(DEPTH + " steps are in flight already");
    }
    CompletableFuture<Sampled> result =
        CompletableFuture.supplyAsync(() -> compute(batch), thread)
            .whenComplete((sampled, thrown) -> inFlight.decrementAndGet());
    return () -> await(result);
  }

  /** On the runner's thread; the warm-up comes before there is one. */
  private Sampled compute(Batch batch) {
    long start = System.nanoTime();
    try {
      return computeStep(batch);
    } finally {
      busyNanos = busyNanos + (System.nanoTime() - start);
    }
  }

  private Sampled computeStep(Batch batch) {
    Sampled before = previous;
    // Should this step fail, the next must not take its tokens from the step before it.
    previous = null;
    Step step = backend.begin(batch, before);
    Sampled sampled = backend.sample(step, model.forward(step, cache));
    previous = sampled;
    return sampled;
  }

  private static StepHandle.Result await(CompletableFuture<Sampled> result)
      throws StepFailedException {
    try {
      Sampled sampled = result.join();
      return new StepHandle.Result(sampled.tokens(), sampled.logprobs());
    } catch (CompletionException e) {
      Throwable cause = e.getCause() == null ? e : e.getCause();
      // Out of memory, or the mapped file was cut: the next step would fare no better.
      boolean fatal = cause instanceof VirtualMachineError;
      throw new StepFailedException("a step failed on the CPU: " + cause, cause, fatal);
    }
  }

  @Override
  public void close() {
    thread.close();
    backend.close();
    model.close();
  }
}
