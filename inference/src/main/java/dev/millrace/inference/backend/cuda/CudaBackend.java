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
import dev.millrace.kernels.ConvertKernels;
import dev.millrace.kernels.CublasLt;
import dev.millrace.kernels.CudaException;
import dev.millrace.kernels.Device;
import dev.millrace.kernels.Event;
import dev.millrace.kernels.FewRowsKernels;
import dev.millrace.kernels.Graph;
import dev.millrace.kernels.NormKernels;
import dev.millrace.kernels.ProductChoice;
import dev.millrace.kernels.Rows;
import dev.millrace.kernels.SamplingKernels;
import dev.millrace.kernels.Stream;
import dev.millrace.kernels.WholeStepKernels;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
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

  /** Twice the largest cache of a GPU. */
  private static final long COLD_BYTES = 256L << 20;

  private final Device device;
  private final int multiprocessors;
  private final List<AutoCloseable> owned = new ArrayList<>();
  private final Stream stream;
  private final GpuMemory memory;
  private final NormKernels norms;
  private final ActivationKernels activations;
  private final AttentionKernels attentions;
  private final SamplingKernels sampling;
  private final ConvertKernels converts;
  private final CublasLt products;
  // Null where the GPU has too little shared memory for them, and where results are to be
  // invariant: they sum in another order than the library.
  private final @Nullable FewRowsKernels fewRows;
  private final CudaFp8 fp8;
  // Null where results are to be invariant: they sum in another order than layers, and few rows
  // alone go by it.
  private final @Nullable WholeStepKernels wholeSteps;
  private final List<Turn> turns = new ArrayList<>();
  private int turn;

  private final Map<Rotary, Long> frequencies = new HashMap<>();
  private final AttentionPlan plan;
  private final boolean invariant;
  private final DrawTable draws = new DrawTable();
  private final @Nullable ProductTimings timings;
  private final Scratch cos;
  private final Scratch sin;
  private final Scratch drawRows;
  private final Scratch partialValues;
  private final Scratch partialWeights;
  private final Widening widening = new Widening();
  private final Scratch widened;

  private record Turn(StepBuffer buffer, Event sampled) {}

  /**
   * What a backend may use.
   *
   * @param device the GPU, 0 for the first
   * @param memoryFraction of the GPU's free memory, above 0, at most 1
   * @param libraries folder of NVIDIA's libraries, or null: where the system looks
   * @param timings folder that keeps which way to compute each product is the fastest; null: that
   *     is found out at each start
   * @param invariant whether a row's results may depend on nothing but its own sequence, to the bit
   */
  public record Options(
      int device,
      double memoryFraction,
      @Nullable Path libraries,
      @Nullable Path timings,
      boolean invariant) {
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
    this.plan = new AttentionPlan(invariant);
    try {
      this.device = Device.open(options.device());
      owned.add(device);
      this.multiprocessors = device.multiprocessors();
      if (device.capability() < 80) {
        throw new DeviceException(
            "%s has compute capability %.1f: the kernels need 8.0 or later (A100 and newer)"
                .formatted(device.name(), device.capability() / 10.0));
      }
      this.stream = own(new Stream());
      this.norms = own(new NormKernels());
      this.activations = own(new ActivationKernels());
      this.attentions = own(new AttentionKernels(device.sharedBytes()));
      this.sampling = own(new SamplingKernels());
      this.converts = own(new ConvertKernels());
      this.memory = own(new GpuMemory(device, options.memoryFraction(), stream));
      this.products =
          own(
              CublasLt.open(
                  options.libraries(),
                  memory.allocate("cuBLASLt's workspace", CublasLt.WORKSPACE_BYTES),
                  invariant));
      this.timings = options.timings() == null ? null : kept(options.timings());
      this.fewRows =
          invariant || device.sharedBytes() < FewRowsKernels.sharedBytes()
              ? null
              : own(new FewRowsKernels(multiprocessors));
      this.fp8 = own(new CudaFp8(memory, products, fewRows, stream, device.capability()));
      this.wholeSteps =
          invariant
                  || device.capability() < WholeStepKernels.CAPABILITY
                  || !device.launchesTogether()
              ? null
              : own(new WholeStepKernels(multiprocessors, device.sharedBytes()));
      this.cos = new Scratch(memory, "the cosines of a step");
      this.sin = new Scratch(memory, "the sines of a step");
      this.drawRows = new Scratch(memory, "how tokens are drawn");
      this.partialValues = new Scratch(memory, "parts of attention");
      this.partialWeights = new Scratch(memory, "weights of parts of attention");
      this.widened = new Scratch(memory, "keys and values widened for prefill");
      for (int i = 0; i < TURNS; i++) {
        turns.add(new Turn(own(new StepBuffer(memory, stream)), own(Event.blocking())));
      }
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

  private ProductTimings kept(Path folder) {
    ProductTimings.Key key =
        new ProductTimings.Key(
            "%s, compute capability %d, %d multiprocessors"
                .formatted(device.name(), device.capability(), multiprocessors),
            Device.driver(),
            "cuBLASLt " + products.version());
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
    cos.of((long) tokens * headDim / 2 * Float.BYTES);
    sin.of((long) tokens * headDim / 2 * Float.BYTES);
    partials(AttentionPlan.mostItems(sequences, multiprocessors), heads, headDim);
    drawRows.of(sequences * SamplingKernels.DRAW_BYTES);
    fp8.reserve(tokens);
  }

  /** Takes what prefill over an FP8 cache needs beside that, where this GPU has kernels for it. */
  void reserveWidening(int tokens, ModelConfig config) {
    if (attentions.widens(config.headDim())) {
      widening.limit(
          Widening.bytes(
              tokens, config.maxContext(), config.heads(), config.kvHeads(), config.headDim()));
      widened.of(widening.most());
    }
  }

  /**
   * Chooses the products' algorithms by time from here to {@link #endTiming}, but for those that
   * were kept.
   *
   * @param address of memory that may be overwritten meanwhile
   * @param bytes of it; less than twice the GPU's cache times products out of the cache
   */
  void beginTiming(long address, long bytes) {
    products.beginTiming(
        new ProductChoice() {
          @Override
          public void coolDown() {
            if (bytes > 0) {
              memory.zero(address, Math.min(bytes, COLD_BYTES));
            }
          }

          @Override
          public void fetch(long from, MemorySegment to) {
            memory.download(from, to);
          }

          @Override
          public @Nullable String kept(String product) {
            return timings == null ? null : timings.get(product);
          }

          @Override
          public void keep(String product, String way) {
            if (timings != null) {
              timings.put(product, way);
            }
          }
        });
  }

  /** Keeps what was found, where there is a place for it. */
  void endTiming() {
    products.endTiming();
    if (timings != null) {
      timings.save();
    }
  }

  @Override
  public String describe() {
    return "%s (device memory %s), %s"
        .formatted(device.name(), DeviceArena.size(device.totalMemory()), products.name());
  }

  // Handles.

  @Override
  public Weight weight(WeightData matrix) {
    if (matrix.format() == WeightFormat.F8_E4M3) {
      return fp8.weight(matrix);
    }
    long elements = (long) matrix.rows() * matrix.columns();
    long address = memory.allocate("the weight " + matrix.name(), elements * Short.BYTES);
    if (matrix.format() == WeightFormat.BF16) {
      memory.upload(address, matrix.data());
    } else {
      convert(matrix, address);
    }
    return new CudaWeight(address, matrix.format(), matrix.rows(), matrix.columns(), null);
  }

  private void convert(WeightData matrix, long to) {
    boolean half = matrix.format() == WeightFormat.F16;
    int width = half ? Short.BYTES : Float.BYTES;
    long buffer = memory.allocate("a buffer for conversion", GpuMemory.stageBytes());
    memory.uploadThrough(
        buffer,
        matrix.data(),
        (offset, bytes) -> {
          long at = to + offset / width * Short.BYTES;
          if (half) {
            converts.fromHalf(buffer, at, bytes / width, stream);
          } else {
            converts.fromFloat(buffer, at, bytes / width, stream);
          }
        });
    memory.free(buffer);
    // A product may read weights before the kernels that come before it have ended.
    stream.synchronize();
  }

  @Override
  public Weight randomWeight(int rows, int columns, WeightFormat format, float spread, long seed) {
    if (format == WeightFormat.F8_E4M3) {
      return fp8.random(rows, columns, spread, seed);
    }
    if (format != WeightFormat.BF16) {
      throw new IllegalArgumentException(
          "the CUDA backend makes up weights of bf16 and FP8, no " + format);
    }
    long elements = (long) rows * columns;
    long address = memory.allocate("a made-up weight", elements * Short.BYTES);
    converts.random(address, elements, seed, spread, stream);
    stream.synchronize(); // as in convert
    return new CudaWeight(address, format, rows, columns, null);
  }

  @Override
  public Tensor vector(WeightData vector) {
    CudaTensor tensor = tensor("the vector " + vector.name(), 1, vector.rows(), Type.F32);
    tensor.fromHost(vector.decode());
    return tensor;
  }

  @Override
  public Tensor tensor(int rows, int columns) {
    return tensor("activations", rows, columns, Type.BF16);
  }

  @Override
  public Tensor logits(int rows, int vocab) {
    return tensor("logits", rows, vocab, Type.F32);
  }

  private CudaTensor tensor(String what, int rows, int columns, Type type) {
    long bytes = Math.multiplyExact((long) rows * columns, type.bytes);
    long address = memory.allocate("%s [%d, %d]".formatted(what, rows, columns), bytes);
    memory.zero(address, bytes);
    return new CudaTensor(memory, address, rows, columns, columns, type, true);
  }

  /** One row of all after another, so that one product can fill them. */
  @Override
  public List<Tensor> sideBySide(int rows, int... columns) {
    int stride = Arrays.stream(columns).sum();
    CudaTensor all = tensor("activations", rows, stride, Type.BF16);
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
    return CudaStep.send(batch, nextTurn(), (CudaSampled) previous);
  }

  /**
   * As {@link #begin(Batch, Sampled)}, with arrays that a graph reads and that have room for it.
   */
  CudaStep begin(
      Batch batch, @Nullable CudaSampled previous, DecodeTables tables, List<AttentionPlan> plans) {
    fp8.forget();
    StepBuffer buffer = nextTurn();
    tables.send(batch, plans, buffer);
    return CudaStep.sent(batch, buffer, previous, tables.arrays());
  }

  private StepBuffer nextTurn() {
    turns.get(turn).buffer.end();
    turn = (turn + 1) % TURNS;
    StepBuffer buffer = turns.get(turn).buffer;
    buffer.begin();
    return buffer;
  }

  // Graphs.

  /** Records work of this backend; see {@link Graph#record}. */
  Graph record(Runnable work) {
    fp8.settle();
    return Graph.record(stream, work);
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
    return multiprocessors * attentions.decodeBlocks(cache.headDim(), cache.numberBytes());
  }

  boolean invariant() {
    return invariant;
  }

  // Operations.

  @Override
  public void embed(Step step, Weight table, Tensor out) {
    CudaStep s = (CudaStep) step;
    CudaWeight weight = (CudaWeight) table;
    if (weight.quantization() != null) {
      throw new IllegalArgumentException("an embedding table of FP8 is to be widened first");
    }
    CudaStep.Embedding embedding = new CudaStep.Embedding(weight, contiguous(out));
    if (s.recorded()) {
      s.leave(embedding);
    } else {
      embed(s, embedding, s.tokens());
    }
  }

  /**
   * The embedding of a step.
   *
   * @param rows of its arrays, at least as many as it has tokens
   */
  void embed(CudaStep step, CudaStep.Embedding embedding, int rows) {
    Batch batch = step.batch();
    CudaWeight table = embedding.table();
    for (int t = 0; t < batch.tokenCount; t++) {
      if (batch.tokenFrom[t] < 0) {
        Objects.checkIndex(batch.tokens[t], table.rows());
      }
    }
    activations.embed(
        step.arrays.tokens(),
        step.arrays.tokenFrom(),
        step.sampledBefore(),
        table.address(),
        embedding.out().address(),
        rows,
        table.columns(),
        stream);
  }

  @Override
  public void rmsNorm(Tensor x, int rows, Tensor weight, float epsilon, Tensor out) {
    if (rows > 0 && out instanceof CudaInput input) {
      fp8.kernels()
          .rmsNorm(
              contiguous(x).address(),
              floats(weight).address(),
              fp8.begin(input, rows),
              rows,
              x.columns(),
              epsilon,
              stream);
    } else if (rows > 0) {
      norms.rmsNorm(
          contiguous(x).address(),
          floats(weight).address(),
          contiguous(out).address(),
          rows,
          x.columns(),
          epsilon,
          stream);
    }
  }

  @Override
  public void addRmsNorm(Tensor x, Tensor y, int rows, Tensor weight, float epsilon, Tensor out) {
    if (rows > 0 && out instanceof CudaInput input) {
      long factors = fp8.take(rows, (CudaTensor) y);
      fp8.kernels()
          .addRmsNorm(
              contiguous(x).address(),
              contiguous(y).address(),
              factors,
              floats(weight).address(),
              fp8.begin(input, rows),
              rows,
              x.columns(),
              epsilon,
              stream);
    } else if (rows > 0) {
      norms.addRmsNorm(
          contiguous(x).address(),
          contiguous(y).address(),
          floats(weight).address(),
          contiguous(out).address(),
          rows,
          x.columns(),
          epsilon,
          stream);
    }
  }

  @Override
  public void linear(Tensor x, int rows, Weight weight, @Nullable Tensor bias, Tensor out) {
    CudaWeight w = (CudaWeight) weight;
    multiply(x, rows, w, w.rows(), (CudaTensor) out);
    if (bias != null) {
      activations.addBias(
          halves(out).asRows(), floats(bias).address(), rows, out.columns(), stream);
    }
  }

  /** By a weight, or by several that follow one another. */
  private void multiply(Tensor x, int rows, CudaWeight weight, int outputs, CudaTensor out) {
    if (weight.quantization() != null) {
      fp8.multiply(x, rows, weight, outputs, out);
      return;
    }
    CublasLt.Output type = out.type() == Type.F32 ? CublasLt.Output.F32 : CublasLt.Output.BF16;
    Rows from = halves(x).asRows();
    long at = weight.address();
    int inputs = weight.columns();
    if (fewRows != null && FewRowsKernels.takes(from, rows, at, inputs, Short.BYTES)) {
      fewRows.multiply(from, rows, at, outputs, inputs, out.asRows(), type, stream);
    } else {
      products.multiply(from, rows, at, outputs, inputs, out.asRows(), type, stream);
    }
  }

  @Override
  public void qkv(Tensor x, int rows, Projection q, Projection k, Projection v) {
    if (!together(x, rows, List.of(q, k, v))) {
      Backend.super.qkv(x, rows, q, k, v);
    }
  }

  @Override
  public void gateUp(Tensor x, int rows, Projection gate, Projection up, Tensor out) {
    if (together(x, rows, List.of(gate, up))) {
      siluMul(gate.out(), up.out(), rows, out);
    } else {
      Backend.super.gateUp(x, rows, gate, up, out);
    }
  }

  /** Several projections as one, where weights follow one another and results lie side by side. */
  private boolean together(Tensor x, int rows, List<Projection> parts) {
    int outputs = 0;
    for (int i = 0; i < parts.size(); i++) {
      Projection part = parts.get(i);
      CudaWeight weight = (CudaWeight) part.weight();
      if (part.bias() != null) {
        return false;
      }
      if (i > 0) {
        CudaTensor before = (CudaTensor) parts.get(i - 1).out();
        CudaTensor out = (CudaTensor) part.out();
        CudaWeight last = (CudaWeight) parts.get(i - 1).weight();
        if (last.end() != weight.address()
            || !last.multipliesAs(weight)
            || before.address() + (long) before.columns() * Short.BYTES != out.address()
            || before.stride() != out.stride()) {
          return false;
        }
      }
      outputs += weight.rows();
    }
    CudaWeight first = (CudaWeight) parts.getFirst().weight();
    multiply(x, rows, first, outputs, (CudaTensor) parts.getFirst().out());
    return true;
  }

  @Override
  public void ropeAndStore(
      Step step, Rotary rotary, Tensor q, Tensor k, Tensor v, KvCache cache, int layer) {
    CudaStep s = (CudaStep) step;
    CudaKvCache kv = (CudaKvCache) cache;
    // Before frequencies are copied, which would have the result made whole.
    long factors = fp8.take(s.tokens(), (CudaTensor) q, (CudaTensor) k, (CudaTensor) v);
    Angles angles = angles(s, rotary);
    if (halves(k).stride() != halves(v).stride()) {
      throw new IllegalArgumentException("keys and values have rows of different strides");
    }
    attentions.ropeAndStore(
        halves(q).asRows(),
        halves(k).asRows(),
        halves(v).address(),
        factors,
        angles.cos,
        angles.sin,
        s.arrays.slots(),
        kv.layer(layer, q.columns() / kv.headDim()),
        s.tokens(),
        stream);
  }

  /** Float [tokens][pairs] each, on the device. */
  record Angles(long cos, long sin) {}

  /** Of a step's tokens; computed once a step. */
  Angles angles(CudaStep s, Rotary rotary) {
    long bytes = (long) s.tokens() * rotary.pairs() * Float.BYTES;
    Angles angles = new Angles(cos.of(bytes), sin.of(bytes));
    if (s.rotary != rotary) {
      attentions.angles(
          s.arrays.positions(),
          frequencies.computeIfAbsent(rotary, this::frequencies),
          angles.cos,
          angles.sin,
          s.tokens(),
          rotary.pairs(),
          rotary.scale(),
          stream);
      s.rotary = rotary;
    }
    return angles;
  }

  private long frequencies(Rotary rotary) {
    double[] values = rotary.inverseFrequencies();
    long bytes = (long) values.length * Double.BYTES;
    long address = memory.allocate("the frequencies of a rotary embedding", bytes);
    try (Arena arena = Arena.ofShared()) {
      MemorySegment from = arena.allocateFrom(ValueLayout.JAVA_DOUBLE, values);
      memory.upload(address, from);
    }
    return address;
  }

  @Override
  public void attention(Step step, Tensor q, KvCache cache, int layer, Tensor out) {
    CudaStep s = (CudaStep) step;
    CudaKvCache kv = (CudaKvCache) cache;
    int heads = q.columns() / kv.headDim();
    AttentionKernels.Layer l = kv.layer(layer, heads);
    CudaStep.Attention a =
        s.arrays
            .attention()
            .computeIfAbsent(
                l.kvHeads(),
                n -> {
                  plan.plan(s.batch(), heads / n, n, decodeBlocks(kv));
                  boolean widens = l.fp8() != null && attentions.widens(kv.headDim());
                  widening.plan(s.batch(), plan, heads / n, widens ? kv.blockNumbers(n) : 0);
                  return CudaStep.Attention.send(
                      plan, widening.send(s.buffer(), widened), s.buffer());
                });
    Rows queries = halves(q).asRows();
    Rows results = halves(out instanceof CudaInput input ? input.room() : out).asRows();
    if (a.tiles().count() > 0) {
      attentions.prefill(queries, results, l, s.arrays.sequences(), a.tiles(), stream);
    }
    if (a.widened() != null) {
      attentions.prefillWidened(queries, results, l, s.arrays.sequences(), a.widened(), stream);
    }
    if (a.items().count() > 0) {
      AttentionKernels.Partials partials =
          a.merges().count() > 0
              ? partials(a.items().count(), heads, kv.headDim())
              : new AttentionKernels.Partials(0, 0);
      attentions.decode(queries, results, l, s.arrays.sequences(), a.items(), partials, stream);
      if (a.merges().count() > 0) {
        attentions.merge(results, l, s.arrays.sequences(), a.merges(), partials, stream);
      }
    }
    if (out instanceof CudaInput input) {
      fp8.round(input, s.tokens());
    }
  }

  private AttentionKernels.Partials partials(int items, int heads, int headDim) {
    return new AttentionKernels.Partials(
        partialValues.of(AttentionKernels.Partials.valueBytes(items, heads, headDim)),
        partialWeights.of(AttentionKernels.Partials.weightBytes(items, heads)));
  }

  @Override
  public void siluMul(Tensor gate, Tensor up, int rows, Tensor out) {
    if (out instanceof CudaInput input) {
      long factors = fp8.take(rows, (CudaTensor) gate, (CudaTensor) up);
      fp8.kernels()
          .siluMul(
              halves(gate).asRows(),
              halves(up).asRows(),
              factors,
              fp8.begin(input, rows),
              rows,
              gate.columns(),
              stream);
      return;
    }
    activations.siluMul(
        halves(gate).asRows(),
        halves(up).asRows(),
        halves(out).asRows(),
        rows,
        gate.columns(),
        stream);
  }

  @Override
  public void add(Tensor x, Tensor y, int rows) {
    activations.add(contiguous(x).address(), contiguous(y).address(), rows, x.columns(), stream);
  }

  @Override
  public void logitRows(Step step, Tensor x, Tensor out) {
    CudaStep s = (CudaStep) step;
    if (s.logitRows() > 0) {
      activations.gatherRows(
          contiguous(x).address(),
          s.arrays.logitRows(),
          contiguous(out).address(),
          s.logitRows(),
          x.columns(),
          stream);
    }
  }

  @Override
  public Sampled sample(Step step, Tensor logits) {
    CudaStep s = (CudaStep) step;
    int rows = s.logitRows();
    int vocab = logits.columns();
    draws.plan(s.batch(), vocab);
    long table = drawRows.of(rows * SamplingKernels.DRAW_BYTES);
    if (draws.changed()) {
      StepBuffer.Region region = s.buffer().reserve(rows * SamplingKernels.DRAW_BYTES);
      region.host().copyFrom(draws.draws());
      region.sendTo(table);
      draws.sent();
    }
    long seen = s.buffer().put(draws.seen.values, draws.seen.count);
    long masked = s.buffer().put(draws.masked.values, draws.masked.count);
    s.buffer().send();
    StepBuffer.Region tokens = s.buffer().reserve((long) rows * Integer.BYTES);
    StepBuffer.Region logprobs =
        draws.logprobs() ? s.buffer().reserve(rows * SamplingKernels.LOGPROBS_BYTES) : null;
    Event there = turns.get(turn).sampled;
    if (rows > 0) {
      sampling.sample(
          floats(logits).address(),
          table,
          seen,
          masked,
          s.sampledBefore(),
          tokens.address(),
          logprobs == null ? 0 : logprobs.address(),
          rows,
          vocab,
          stream);
      tokens.fetch();
      if (logprobs != null) {
        logprobs.fetch();
      }
    }
    there.record(stream);
    return new CudaSampled(tokens, logprobs, draws.followed(), there);
  }

  @Override
  public @Nullable WholeNetwork whole(UniformNetwork network, KvCache cache) {
    return wholeSteps == null
        ? null
        : CudaWholeNetwork.of(this, memory, wholeSteps, stream, network, (CudaKvCache) cache);
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
    return new CudaGauge(memory, products, converts, fp8, stream, bytes, address, free);
  }

  /** Whether rows of the last FP8 result are still to be scaled, by what reads it. */
  boolean leftUnscaled() {
    return fp8.isUnscaled();
  }

  CudaTensor halves(Tensor tensor) {
    return typed(tensor, Type.BF16);
  }

  CudaTensor floats(Tensor tensor) {
    return typed(tensor, Type.F32);
  }

  CudaTensor contiguous(Tensor tensor) {
    CudaTensor t = halves(tensor);
    if (!t.contiguous()) {
      throw new IllegalArgumentException("this operation takes no tensor that lies beside others");
    }
    return t;
  }

  /** What any operation reads or writes: whatever an FP8 product left to do is done before. */
  private CudaTensor typed(Tensor tensor, Type type) {
    fp8.settle();
    CudaTensor t = (CudaTensor) tensor;
    if (t.type() != type) {
      throw new IllegalArgumentException("the tensor holds " + t.type() + ", not " + type);
    }
    return t;
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
