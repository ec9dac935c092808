package dev.millrace.inference.backend.cuda;

import dev.millrace.inference.backend.Backend;
import dev.millrace.inference.backend.Rotary;
import dev.millrace.inference.backend.Tensor;
import dev.millrace.inference.checkpoint.ModelConfig;
import dev.millrace.kernels.AttentionKernels;
import dev.millrace.kernels.BeginKernels;
import dev.millrace.kernels.Device;
import dev.millrace.kernels.Rows;
import dev.millrace.kernels.Stream;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.HashMap;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * Rotary embedding and attention of a {@link CudaBackend}, which owns and closes it: what a step's
 * layers share is computed and planned once.
 */
final class CudaAttention implements AutoCloseable {
  private final AttentionKernels kernels;
  private final BeginKernels beginnings;
  private final int multiprocessors;
  private final GpuMemory memory;
  private final Stream stream;
  private final CudaFp8 fp8;
  private final Operands operands;
  private final AttentionPlan plan;
  private final boolean e4m3;
  private final Transposing transposing = new Transposing();
  private final Widening widening = new Widening();
  private final Map<Rotary, Long> frequencies = new HashMap<>();
  private final Scratch cos;
  private final Scratch sin;
  private final Scratch partialValues;
  private final Scratch partialWeights;
  private final Scratch prepared;

  /**
   * @param beginnings of whoever owns this
   * @param fp8 inputs of layers that read what attention makes
   * @param options whether a token's result may depend on its own sequence alone, and whether
   *     prompts may be multiplied in e4m3
   */
  CudaAttention(
      Device device,
      GpuMemory memory,
      BeginKernels beginnings,
      Stream stream,
      CudaFp8 fp8,
      CudaBackend.Options options) {
    this.beginnings = beginnings;
    this.kernels = new AttentionKernels(device.sharedBytes(), device.multiprocessors());
    this.multiprocessors = device.multiprocessors();
    this.memory = memory;
    this.stream = stream;
    this.fp8 = fp8;
    this.operands = new Operands(fp8);
    this.plan = new AttentionPlan(options.invariant());
    this.e4m3 = options.e4m3Prefill() && !options.invariant();
    this.cos = new Scratch(memory, "the cosines of a step");
    this.sin = new Scratch(memory, "the sines of a step");
    this.partialValues = new Scratch(memory, "parts of attention");
    this.partialWeights = new Scratch(memory, "weights of parts of attention");
    this.prepared = new Scratch(memory, "keys and values made ready for prefill");
  }

  /** Takes what steps of so many tokens and sequences need on the way, so that none does later. */
  void reserve(int tokens, int sequences, int heads, int headDim) {
    cos.of((long) tokens * headDim / 2 * Float.BYTES);
    sin.of((long) tokens * headDim / 2 * Float.BYTES);
    partials(AttentionPlan.mostItems(sequences, multiprocessors), heads, headDim);
  }

  /** Takes what prefill over an FP8 cache needs beside that, where this GPU has kernels for it. */
  void reservePrefill(int tokens, ModelConfig config) {
    BeforePrefill before = before(config.headDim());
    if (before != null) {
      before.limit(
          before == transposing
              ? Transposing.bytes(tokens, config.maxContext(), config.kvHeads())
              : Widening.bytes(
                  tokens, config.maxContext(), config.heads(), config.kvHeads(), config.headDim()));
      before.placeIn(prepared);
    }
  }

  /**
   * What is made of an FP8 cache before its prefill; null where this GPU has no kernels for it.
   * Where results are to be invariant a decode is a prefill too, and values cannot be transposed at
   * each of its steps: so both take halves.
   */
  private @Nullable BeforePrefill before(int headDim) {
    if (e4m3 && kernels.attendsInE4m3(headDim)) {
      return transposing;
    }
    return kernels.widens(headDim) ? widening : null;
  }

  /** Blocks of a decode over such a cache that run at once. */
  int decodeBlocks(CudaKvCache cache) {
    return multiprocessors * kernels.decodeBlocks(cache.headDim(), cache.numberBytes());
  }

  /** See {@link Backend#ropeAndStore}. */
  void ropeAndStore(
      CudaStep s, Rotary rotary, Tensor q, Tensor k, Tensor v, CudaKvCache kv, int layer) {
    // Before frequencies are copied, which would have the result made whole.
    long factors = fp8.take(s.tokens(), (CudaTensor) q, (CudaTensor) k, (CudaTensor) v);
    BeginKernels.Angles angles = angles(s, rotary);
    if (operands.halves(k).stride() != operands.halves(v).stride()) {
      throw new IllegalArgumentException("keys and values have rows of different strides");
    }
    kernels.ropeAndStore(
        operands.halves(q).asRows(),
        operands.halves(k).asRows(),
        operands.halves(v).address(),
        factors,
        angles.cos(),
        angles.sin(),
        s.arrays.slots(),
        kv.layer(layer, q.columns() / kv.headDim()),
        s.tokens(),
        stream);
  }

  /** Of a step's tokens; computed once a step. A recorded one leaves the first that it needs. */
  BeginKernels.Angles angles(CudaStep s, Rotary rotary) {
    long bytes = (long) s.tokens() * rotary.pairs() * Float.BYTES;
    BeginKernels.Angles angles =
        new BeginKernels.Angles(
            s.arrays.positions(),
            frequencies.computeIfAbsent(rotary, this::frequencies),
            cos.of(bytes),
            sin.of(bytes),
            rotary.pairs(),
            rotary.scale());
    if (s.rotary == null && s.recorded()) {
      s.leave(angles);
    } else if (s.rotary != rotary) {
      beginnings.angles(angles, s.tokens(), stream);
    }
    s.rotary = rotary;
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

  /** See {@link Backend#attention}. */
  void attention(CudaStep s, Tensor q, CudaKvCache kv, int layer, Tensor out) {
    int heads = q.columns() / kv.headDim();
    AttentionKernels.Layer l = kv.layer(layer, heads);
    CudaStep.Attention a =
        s.arrays
            .attention()
            .computeIfAbsent(
                l.kvHeads(),
                n -> {
                  plan.plan(s.batch(), heads / n, n, decodeBlocks(kv));
                  BeforePrefill before = l.fp8() == null ? null : before(kv.headDim());
                  if (before != null) {
                    before.plan(s.batch(), plan, heads / n, before.unitBytes(kv, n));
                  }
                  return CudaStep.Attention.send(
                      plan, before == null ? null : before.send(s.buffer(), prepared), s.buffer());
                });
    Rows queries = operands.halves(q).asRows();
    Rows results = operands.halves(out instanceof CudaInput input ? input.room() : out).asRows();
    if (a.tiles().count() > 0) {
      kernels.prefill(queries, results, l, s.arrays.sequences(), a.tiles(), stream);
    }
    if (a.prepared() != null) {
      kernels.prefill(queries, results, l, s.arrays.sequences(), a.prepared(), stream);
    }
    if (a.items().count() > 0) {
      AttentionKernels.Partials partials =
          a.merges().count() > 0
              ? partials(a.items().count(), heads, kv.headDim())
              : new AttentionKernels.Partials(0, 0);
      kernels.decode(queries, results, l, s.arrays.sequences(), a.items(), partials, stream);
      if (a.merges().count() > 0) {
        kernels.merge(results, l, s.arrays.sequences(), a.merges(), partials, stream);
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
  public void close() {
    kernels.close();
  }
}
