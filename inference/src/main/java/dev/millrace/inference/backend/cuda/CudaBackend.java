package dev.millrace.inference.backend.cuda;

import dev.millrace.inference.backend.Backend;
import dev.millrace.inference.backend.DeviceException;
import dev.millrace.inference.backend.Gauge;
import dev.millrace.inference.backend.KvCache;
import dev.millrace.inference.backend.KvFormat;
import dev.millrace.inference.backend.KvScale;
import dev.millrace.inference.backend.Rotary;
import dev.millrace.inference.backend.Sampled;
import dev.millrace.inference.backend.Step;
import dev.millrace.inference.backend.Tensor;
import dev.millrace.inference.backend.UniformNetwork;
import dev.millrace.inference.backend.Weight;
import dev.millrace.inference.backend.WholeNetwork;
import dev.millrace.inference.backend.cuda.CudaTensor.Type;
import dev.millrace.inference.checkpoint.InvalidCheckpointException;
import dev.millrace.inference.checkpoint.ModelConfig;
import dev.millrace.inference.checkpoint.WeightData;
import dev.millrace.inference.checkpoint.WeightFormat;
import dev.millrace.inference.engine.Batch;
import dev.millrace.kernels.ActivationKernels;
import dev.millrace.kernels.AttentionKernels;
import dev.millrace.kernels.BeginKernels;
import dev.millrace.kernels.ConvertKernels;
import dev.millrace.kernels.CublasLt;
import dev.millrace.kernels.CudaException;
import dev.millrace.kernels.Device;
import dev.millrace.kernels.Event;
import dev.millrace.kernels.Graph;
import dev.millrace.kernels.MemsetNodes;
import dev.millrace.kernels.NormKernels;
import dev.millrace.kernels.SamplingKernels;
import dev.millrace.kernels.Stream;
import dev.millrace.kernels.WholeStepKernels;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.function.LongSupplier;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * One GPU. Operations are given to one stream and return at once; the host waits for nothing but
 * sampled tokens. All memory is taken when the backend opens. One thread at a time uses it; each
 * calls {@link #makeCurrent} first.
 *
 * <p>Steps take turns at three buffers: two steps may be in flight while a third is prepared.
 */
public final class CudaBackend implements Backend {
  private static final Logger LOG = LoggerFactory.getLogger(CudaBackend.class);
  private static final int TURNS = 3;

  /** With as many, one is spared for the thread that waits for the GPU. */
  private static final int SPINNING_PROCESSORS = 8;

  private final Device device;
  private final List<AutoCloseable> owned = new ArrayList<>();
  private final Stream stream;
  private final GpuMemory memory;
  private final ConvertKernels converts;
  private final CublasLt library;
  private final CudaFp8 fp8;
  private final Operands operands;
  private final CudaWeights weights;
  private final CudaRows rowWise;
  private final CudaProducts products;
  private final CudaAttention attention;
  private final CudaSteps steps;
  private final MemsetNodes memsets;
  // Null where results are to be invariant: they sum in another order than layers, and few rows
  // alone go by it.
  private final @Nullable WholeStepKernels wholeSteps;
  private final boolean invariant;

  /**
   * What a backend may use.
   *
   * @param device the GPU, 0 for the first
   * @param memoryFraction of the GPU's free memory, above 0, at most 1
   * @param libraries folder of NVIDIA's libraries, or null: where the system looks
   * @param timings folder that keeps which way to compute each product is the fastest; null: that
   *     is found out at each start
   * @param invariant whether a row's results may depend on nothing but its own sequence, to the bit
   * @param e4m3Prefill whether prefill over an FP8 cache may round queries and weights to e4m3,
   *     where there are kernels for it and results need not be invariant
   */
  public record Options(
      int device,
      double memoryFraction,
      @Nullable Path libraries,
      @Nullable Path timings,
      boolean invariant,
      boolean e4m3Prefill) {
    public Options {
      if (device < 0) {
        throw new IllegalArgumentException("device is " + device + ", it must be 0 or more");
      }
      if (!(memoryFraction > 0 && memoryFraction <= 1)) {
        throw new IllegalArgumentException(
            "memoryFraction is " + memoryFraction + ", it must be above 0 and at most 1");
      }
    }
  }

  /** GPUs of this machine that CUDA sees; 0 where there is no driver. */
  public static int devices() {
    return Device.count();
  }

  /**
   * Opens a GPU and takes its memory.
   *
   * @throws DeviceException if it or the libraries cannot be used, or too little memory is free
   */
  public CudaBackend(Options options) {
    this.invariant = options.invariant();
    try {
      this.device = Device.open(options.device());
      owned.add(device);
      if (device.capability() < 80) {
        throw new DeviceException(
            "%s has compute capability %.1f: the kernels need 8.0 or later (A100 and newer)"
                .formatted(device.name(), device.capability() / 10.0));
      }
      this.stream = own(new Stream());
      this.converts = own(new ConvertKernels());
      this.memory = own(new GpuMemory(device, options.memoryFraction(), stream));
      this.library =
          own(
              CublasLt.open(
                  options.libraries(),
                  memory.allocate("cuBLASLt's workspace", CublasLt.WORKSPACE_BYTES),
                  invariant));
      // Not where results are to be invariant: they sum in another order than the library.
      OwnProducts own = invariant ? null : own(new OwnProducts(device, stream));
      this.fp8 = own(new CudaFp8(memory, library, own, stream, device.capability()));
      this.operands = new Operands(fp8);
      this.weights = new CudaWeights(memory, converts, fp8, stream);
      BeginKernels beginnings = own(new BeginKernels());
      this.rowWise =
          new CudaRows(
              own(new NormKernels()),
              own(new ActivationKernels()),
              beginnings,
              fp8,
              operands,
              stream);
      this.products = new CudaProducts(library, own, fp8, memory, stream, kept(options.timings()));
      this.attention = own(new CudaAttention(device, memory, beginnings, stream, fp8, options));
      List<StepBuffer> turns = new ArrayList<>();
      for (int i = 0; i < TURNS; i++) {
        turns.add(own(new StepBuffer(memory, stream, own(waited()))));
      }
      this.steps =
          new CudaSteps(
              memory,
              beginnings,
              own(new SamplingKernels(device.multiprocessors())),
              stream,
              turns);
      this.memsets = own(new MemsetNodes());
      this.wholeSteps =
          invariant
                  || device.capability() < WholeStepKernels.CAPABILITY
                  || !device.launchesTogether()
              ? null
              : own(new WholeStepKernels(device.multiprocessors(), device.sharedBytes()));
    } catch (CudaException e) {
      close(owned);
      throw new DeviceException("the GPU cannot be used: " + e.getMessage(), e);
    } catch (RuntimeException | Error e) {
      close(owned);
      throw e;
    }
  }

  /** Closes a part when it closes itself, before those that were there earlier. */
  <T extends AutoCloseable> T own(T part) {
    owned.add(part);
    return part;
  }

  /**
   * How the host waits for a step. A thread that sleeps finds its processor's caches cold, and a
   * step costs it up to twice as long; but it takes a processor to stay awake, and each of the
   * machine's GPUs may have a worker.
   */
  private static Event waited() {
    return Runtime.getRuntime().availableProcessors() >= SPINNING_PROCESSORS * devices()
        ? Event.spinning()
        : Event.blocking();
  }

  private @Nullable ProductTimings kept(@Nullable Path folder) {
    if (folder == null) {
      return null;
    }
    ProductTimings.Key key =
        new ProductTimings.Key(
            "%s, compute capability %d, %d multiprocessors"
                .formatted(device.name(), device.capability(), device.multiprocessors()),
            Device.driver(),
            "cuBLASLt " + library.version());
    return ProductTimings.open(folder, key);
  }

  /** Lets the calling thread use the backend. */
  void makeCurrent() {
    device.makeCurrent();
  }

  /** Bytes in the largest free piece of memory. */
  long freeBytes() {
    return memory.largestFree();
  }

  /** Takes what steps of so many tokens and sequences need on the way, so that none does later. */
  void reserve(int tokens, int sequences, int heads, int headDim) {
    attention.reserve(tokens, sequences, heads, headDim);
    steps.reserve(sequences);
    fp8.reserve(tokens);
  }

  /** Takes what prefill over an FP8 cache needs beside that, where this GPU has kernels for it. */
  void reservePrefill(int tokens, ModelConfig config) {
    attention.reservePrefill(tokens, config);
  }

  /** See {@link CudaProducts#beginTiming}. */
  void beginTiming(long address, long bytes) {
    products.beginTiming(address, bytes);
  }

  /** Keeps what was found, where there is a place for it. */
  void endTiming() {
    products.endTiming();
  }

  @Override
  public String describe() {
    return "%s (device memory %s), %s"
        .formatted(device.name(), DeviceArena.size(device.totalMemory()), library.name());
  }

  // Handles.

  @Override
  public Weight weight(WeightData matrix) {
    return weights.weight(matrix);
  }

  @Override
  public Weight randomWeight(int rows, int columns, WeightFormat format, float spread, long seed) {
    return weights.random(rows, columns, format, spread, seed);
  }

  @Override
  public Tensor vector(WeightData vector) {
    CudaTensor tensor =
        CudaTensor.zeros(memory, "the vector " + vector.name(), 1, vector.rows(), Type.F32);
    tensor.fromHost(vector.decode());
    return tensor;
  }

  @Override
  public Tensor tensor(int rows, int columns) {
    return CudaTensor.zeros(memory, "activations", rows, columns, Type.BF16);
  }

  @Override
  public Tensor logits(int rows, int vocab) {
    return CudaTensor.zeros(memory, "logits", rows, vocab, Type.F32);
  }

  /** One row of all after another, so that one product can fill them. */
  @Override
  public List<Tensor> sideBySide(int rows, int... columns) {
    int stride = Arrays.stream(columns).sum();
    CudaTensor all = CudaTensor.zeros(memory, "activations", rows, stride, Type.BF16);
    List<Tensor> parts = new ArrayList<>();
    long address = all.address();
    for (int n : columns) {
      parts.add(new CudaTensor(memory, address, rows, n, stride, Type.BF16, parts.isEmpty()));
      address += (long) n * Short.BYTES;
    }
    return parts;
  }

  @Override
  public void free(Tensor tensor) {
    CudaTensor t = (CudaTensor) tensor;
    if (t.owner()) {
      // What comes there next is not to be scaled.
      fp8.forget(t.address(), (long) t.rows() * t.stride() * t.type().bytes);
      memory.free(t.address());
    }
  }

  @Override
  public KvCache kvCache(List<Integer> kvHeads, int headDim, int blocks) {
    List<KvScale> none = Collections.nCopies(kvHeads.size(), KvScale.NONE);
    return kvCache(kvHeads, headDim, blocks, KvFormat.NATIVE, none);
  }

  @Override
  public KvCache fp8KvCache(List<Integer> kvHeads, int headDim, int blocks, List<KvScale> scales) {
    return kvCache(kvHeads, headDim, blocks, KvFormat.FP8, scales);
  }

  private KvCache kvCache(
      List<Integer> kvHeads, int headDim, int blocks, KvFormat format, List<KvScale> scales) {
    if (!AttentionKernels.HEAD_DIMS.contains(headDim)) {
      throw new InvalidCheckpointException(
          "the CUDA backend has kernels for heads of %s numbers, not %d"
              .formatted(AttentionKernels.HEAD_DIMS, headDim));
    }
    return new CudaKvCache(memory, kvHeads, headDim, blocks, format, scales);
  }

  @Override
  public Tensor inputOf(Tensor room, Weight... readers) {
    return fp8.inputOf(room, readers);
  }

  @Override
  public Step begin(Batch batch, @Nullable Sampled previous) {
    fp8.forget();
    return steps.begin(batch, (CudaSampled) previous);
  }

  /**
   * As {@link #begin(Batch, Sampled)}, with arrays that a recorded step reads and that have room
   * for it, and with what that left to do before it.
   */
  CudaStep begin(
      Batch batch,
      @Nullable CudaSampled previous,
      DecodeTables tables,
      List<AttentionPlan> plans,
      CudaStep.Left left) {
    fp8.forget();
    return steps.begin(batch, previous, tables, plans, left);
  }

  // Graphs.

  /** Records work of this backend; see {@link Graph#record}. */
  Graph record(Runnable work) {
    fp8.settle();
    return Graph.record(stream, memsets, work);
  }

  void launch(Graph graph) {
    graph.launch(stream);
  }

  /** Room for what graphs read, until the backend closes. */
  long tables(long bytes) {
    return memory.allocate("the tables of graphs", bytes);
  }

  /** Counts what was given back: as long as it stands, what a graph works in is where it was. */
  long freed() {
    return memory.freed();
  }

  /** Of the whole GPU, what nobody has taken. */
  long deviceFreeBytes() {
    return device.freeMemory();
  }

  /** Blocks of a decode over such a cache that run at once. */
  int decodeBlocks(CudaKvCache cache) {
    return attention.decodeBlocks(cache);
  }

  boolean invariant() {
    return invariant;
  }

  // Operations.

  @Override
  public void embed(Step step, Weight table, Tensor out) {
    rowWise.embed((CudaStep) step, (CudaWeight) table, out);
  }

  @Override
  public void rmsNorm(Tensor x, int rows, Tensor weight, float epsilon, Tensor out) {
    rowWise.rmsNorm(x, rows, weight, epsilon, out);
  }

  @Override
  public void addRmsNorm(Tensor x, Tensor y, int rows, Tensor weight, float epsilon, Tensor out) {
    rowWise.addRmsNorm(x, y, rows, weight, epsilon, out);
  }

  @Override
  public void linear(Tensor x, int rows, Weight weight, @Nullable Tensor bias, Tensor out) {
    products.multiply(x, rows, weight, out);
    if (bias != null) {
      rowWise.addBias(out, rows, bias);
    }
  }

  @Override
  public void qkv(Tensor x, int rows, Projection q, Projection k, Projection v) {
    if (!products.together(x, rows, List.of(q, k, v))) {
      Backend.super.qkv(x, rows, q, k, v);
    }
  }

  @Override
  public void gateUp(Tensor x, int rows, Projection gate, Projection up, Tensor out) {
    if (products.together(x, rows, List.of(gate, up))) {
      siluMul(gate.out(), up.out(), rows, out);
    } else {
      Backend.super.gateUp(x, rows, gate, up, out);
    }
  }

  @Override
  public void ropeAndStore(
      Step step, Rotary rotary, Tensor q, Tensor k, Tensor v, KvCache cache, int layer) {
    attention.ropeAndStore((CudaStep) step, rotary, q, k, v, (CudaKvCache) cache, layer);
  }

  @Override
  public void attention(Step step, Tensor q, KvCache cache, int layer, Tensor out) {
    attention.attention((CudaStep) step, q, (CudaKvCache) cache, layer, out);
  }

  @Override
  public void siluMul(Tensor gate, Tensor up, int rows, Tensor out) {
    rowWise.siluMul(gate, up, rows, out);
  }

  @Override
  public void add(Tensor x, Tensor y, int rows) {
    rowWise.add(x, y, rows);
  }

  @Override
  public void logitRows(Step step, Tensor x, Tensor out) {
    rowWise.logitRows((CudaStep) step, x, out);
  }

  @Override
  public Sampled sample(Step step, Tensor logits) {
    return steps.sample((CudaStep) step, operands.floats(logits));
  }

  @Override
  public @Nullable WholeNetwork whole(UniformNetwork network, KvCache cache) {
    return whole(network, (CudaKvCache) cache, CudaWholeNetwork.fastUpTo(network));
  }

  /** As above, for steps of up to so many rows. */
  @Nullable CudaWholeNetwork whole(UniformNetwork network, CudaKvCache cache, int mostRows) {
    return wholeSteps == null ? null : whole(network, cache, mostRows, memory, wholeSteps);
  }

  /** As above, in this memory, by these kernels. */
  @Nullable CudaWholeNetwork whole(
      UniformNetwork network,
      CudaKvCache cache,
      int mostRows,
      GpuMemory room,
      WholeStepKernels kernels) {
    return CudaWholeNetwork.of(
        attention, operands, room, kernels, stream, network, cache, mostRows);
  }

  @Override
  public void await() {
    stream.synchronize();
  }

  /** Measures in memory that is free. */
  @Override
  public Gauge gauge() {
    return gauge(CudaGauge.BYTES, () -> memory.allocate("a measurement", CudaGauge.BYTES), true);
  }

  /** Measures in memory that somebody lends, and overwrites it. */
  Gauge gauge(long bytes, LongSupplier address, boolean free) {
    return new CudaGauge(memory, library, converts, fp8, stream, bytes, address, free);
  }

  /** Whether rows of the last FP8 result are still to be scaled, by what reads it. */
  boolean leftUnscaled() {
    return fp8.isUnscaled();
  }

  /** What cannot be freed any more, because the GPU broke, goes with the process. */
  @Override
  public void close() {
    if (owned.isEmpty()) {
      return;
    }
    try {
      device.makeCurrent();
      stream.synchronize();
    } catch (CudaException e) {
      LOG.debug("The GPU did not finish its work", e);
    }
    close(owned);
  }

  private static void close(List<AutoCloseable> parts) {
    for (AutoCloseable part : parts.reversed()) {
      try {
        part.close();
      } catch (Exception e) {
        LOG.debug("The GPU did not take something back", e);
      }
    }
    parts.clear();
  }
}
