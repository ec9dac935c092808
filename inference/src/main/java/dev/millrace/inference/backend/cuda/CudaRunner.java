package dev.millrace.inference.backend.cuda;

import dev.millrace.inference.backend.DeviceException;
import dev.millrace.inference.backend.Gauge;
import dev.millrace.inference.backend.KvFormat;
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
import dev.millrace.kernels.CudaException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Runs a checkpoint's steps on a GPU, two deep: a step is given to the GPU while the one before it
 * runs, and takes that one's tokens there. No thread of its own: {@link #submit} returns when the
 * work is queued. Owns model, backend and mapped files; whoever opens it closes it, after the
 * engine.
 *
 * <p>After an error that leaves the GPU unusable for this process every step fails, and the failure
 * says so; other errors cost one step.
 */
public final class CudaRunner implements ModelRunner {
  private static final Logger LOG = LoggerFactory.getLogger(CudaRunner.class);
  private static final int DEPTH = 2;

  /** Tokens a KV block, whatever the model. */
  public static final int BLOCK_SIZE = CudaKvCache.BLOCK;

  /** From here on there is a rung between two powers of two. */
  private static final int FINER_RUNGS = 16;

  /** Left free of KV blocks: for steps with larger tables than usual. */
  private static final long SLACK = 192L << 20;

  private final CudaBackend backend;
  private final Model model;
  private final CudaKvCache cache;
  private final Info info;
  private final DecodeGraphs graphs;
  private int inFlight;
  private boolean lost;
  // What the step before draws; null after one that failed.
  private @Nullable CudaSampled previous;

  /**
   * What a runner may use.
   *
   * @param backend the GPU and how much of it
   * @param kvBlocks blocks of keys and values; 0: as many as the GPU's memory has room for
   * @param maxTokens most query tokens of a step, at least 1
   * @param maxSequences most sequences of a step, at least 1
   * @param kv format of keys and values; null: what the checkpoint says
   * @param warmUp whether to return only when the first step will be as fast as the rest
   * @param graphs whether decode steps are launched as graphs, which are recorded when it warms up
   */
  public record Options(
      CudaBackend.Options backend,
      int kvBlocks,
      int maxTokens,
      int maxSequences,
      @Nullable KvFormat kv,
      boolean warmUp,
      boolean graphs) {
    public Options {
      if (kvBlocks < 0 || maxTokens < 1 || maxSequences < 1) {
        throw new IllegalArgumentException(
            "kvBlocks must be 0 or more, maxTokens and maxSequences 1 or more: "
                + List.of(kvBlocks, maxTokens, maxSequences));
      }
    }
  }

  /**
   * Opens the folder of a Hugging Face checkpoint.
   *
   * @throws dev.millrace.inference.checkpoint.InvalidCheckpointException if the checkpoint is
   *     damaged, incomplete or of a kind that is not supported
   * @throws DeviceException if the GPU cannot be used or the model does not fit
   */
  public static CudaRunner open(Path folder, Options options) {
    return open(new ModelSource.Folder(folder), options);
  }

  /** As {@link #open(Path, Options)}, of any source. */
  public static CudaRunner open(ModelSource source, Options options) {
    CudaRunner runner = load(source, options);
    LOG.info(
        "Opened {} on {}: context {}, {} KV blocks of {} tokens",
        source,
        runner.backend.describe(),
        runner.info.maxContext(),
        runner.info.blocks(),
        BLOCK_SIZE);
    return runner;
  }

  private static CudaRunner load(ModelSource source, Options options) {
    CudaBackend backend = new CudaBackend(options.backend());
    Model model = null;
    try {
      model = Models.load(source, backend);
      return new CudaRunner(backend, model, options);
    } catch (CudaException e) {
      close(backend, model);
      throw new DeviceException("the model could not be brought to the GPU: " + e.getMessage(), e);
    } catch (RuntimeException | Error e) {
      close(backend, model);
      throw e;
    }
  }

  private CudaRunner(CudaBackend backend, Model model, Options options) {
    ModelConfig config = model.config();
    this.backend = backend;
    this.model = model;
    model.reserve(options.maxTokens(), options.maxSequences());
    backend.reserve(options.maxTokens(), options.maxSequences(), config.heads(), config.headDim());
    KvFormat format = options.kv() == null ? stored(config) : options.kv();
    if (format == KvFormat.FP8) {
      backend.reservePrefill(options.maxTokens(), config);
    }
    int blocks =
        options.kvBlocks() > 0 ? options.kvBlocks() : blocks(config, format, backend.freeBytes());
    this.cache = (CudaKvCache) model.kvCache(blocks, format);
    this.info =
        new Info(
            config.vocabSize(),
            (int) Math.min(config.maxContext(), (long) blocks * BLOCK_SIZE),
            BLOCK_SIZE,
            blocks,
            DEPTH);
    this.graphs = backend.own(new DecodeGraphs(backend, model, cache, info.maxContext()));
    if (options.warmUp()) {
      warmUp(options.maxTokens(), options.maxSequences());
      if (options.graphs()) {
        graphs.record(Math.min(options.maxTokens(), options.maxSequences()));
      }
    }
  }

  private static KvFormat stored(ModelConfig config) {
    return config.quantization().keysAndValues() ? KvFormat.FP8 : KvFormat.NATIVE;
  }

  /**
   * Steps of many sizes with made-up tokens, so that everything is loaded and the fastest products
   * are known.
   */
  private void warmUp(int maxTokens, int maxSequences) {
    long start = System.nanoTime();
    backend.beginTiming(cache.first(), cache.firstBytes());
    // Without logits no step is one kernel: a decode's kernels are loaded too.
    warmUpBy(1, 0);
    for (int tokens : rungs(maxTokens)) {
      warmUpBy(tokens, Math.min(tokens, maxSequences));
    }
    backend.endTiming();
    LOG.info("Timed the matrix products in {} ms", (System.nanoTime() - start) / 1_000_000);
  }

  private void warmUpBy(int tokens, int logits) {
    Batch batch = new Batch(1, tokens, Math.ceilDiv(tokens, BLOCK_SIZE));
    batch.sequences = 1;
    batch.tokenCount = tokens;
    batch.queryStart[1] = tokens;
    batch.contextLength[0] = tokens;
    batch.logitRows = new int[logits];
    batch.logitCount = logits;
    for (int t = 0; t < tokens; t++) {
      batch.tokenFrom[t] = -1;
      batch.tokens[t] = t % model.config().vocabSize();
      batch.positions[t] = t;
      batch.slots[t] = t % BLOCK_SIZE;
    }
    model.forward(backend.begin(batch, null), cache);
    backend.await();
  }

  /** Numbers of tokens at which products are timed: each at most half more than the one before. */
  static List<Integer> rungs(int most) {
    List<Integer> rungs = new ArrayList<>();
    for (int rung = 1; rung < most; rung *= 2) {
      rungs.add(rung);
      if (rung >= FINER_RUNGS && rung * 3 / 2 < most) {
        rungs.add(rung * 3 / 2);
      }
    }
    rungs.add(most);
    return rungs;
  }

  /** Blocks that so many bytes hold, short of the slack. */
  static int blocks(ModelConfig config, KvFormat format, long bytes) {
    List<Integer> kvHeads = config.kvHeads();
    long each = Math.max(1, CudaKvCache.blockBytes(kvHeads, config.headDim(), format));
    long arrays = 2L * kvHeads.size() * DeviceArena.ALIGNMENT;
    long blocks = (bytes - SLACK - arrays) / each;
    if (blocks < 1) {
      throw new DeviceException(
          "the weights leave %s of the GPU's memory, too little for a KV cache: take a smaller model, or fewer tokens and sequences a step"
              .formatted(DeviceArena.size(bytes)));
    }
    // Slots are ints.
    return (int) Math.min(blocks, Integer.MAX_VALUE / BLOCK_SIZE);
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
    backend.makeCurrent();
    return backend.gauge(cache.firstBytes(), cache::first, false);
  }

  @Override
  public long graphSteps() {
    return graphs.launched();
  }

  @Override
  public String describe() {
    return backend.describe();
  }

  @Override
  public StepHandle submit(Batch batch) {
    if (inFlight == DEPTH) {
      throw new IllegalStateException(DEPTH + " steps are in flight already");
    }
    inFlight++;
    CudaSampled sampled;
    try {
      sampled = compute(batch);
    } catch (RuntimeException e) {
      StepFailedException failure = failure(e);
      return () -> {
        inFlight--;
        throw failure;
      };
    }
    return () -> await(sampled);
  }

  private CudaSampled compute(Batch batch) {
    if (lost) {
      throw new IllegalStateException("the GPU broke in an earlier step");
    }
    CudaSampled before = previous;
    // Should this step fail, the next must not take its tokens from the step before it.
    previous = null;
    backend.makeCurrent();
    CudaSampled sampled = graphs.run(batch, before);
    if (sampled == null) {
      Step step = backend.begin(batch, before);
      sampled = (CudaSampled) backend.sample(step, model.forward(step, cache));
    }
    previous = sampled;
    return sampled;
  }

  private StepHandle.Result await(CudaSampled sampled) throws StepFailedException {
    inFlight--;
    try {
      backend.makeCurrent();
      return new StepHandle.Result(sampled.tokens(), sampled.logprobs());
    } catch (RuntimeException e) {
      throw failure(e);
    }
  }

  private StepFailedException failure(RuntimeException cause) {
    lost |= cause instanceof CudaException e && e.sticky();
    return new StepFailedException("a step failed on the GPU: " + cause.getMessage(), cause, lost);
  }

  @Override
  public void close() {
    close(backend, model);
  }

  private static void close(CudaBackend backend, @Nullable Model model) {
    backend.close();
    if (model != null) {
      model.close();
    }
  }
}
