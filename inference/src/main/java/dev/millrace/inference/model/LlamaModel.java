package dev.millrace.inference.model;

import dev.millrace.inference.backend.Backend;
import dev.millrace.inference.backend.Backend.Projection;
import dev.millrace.inference.backend.KvCache;
import dev.millrace.inference.backend.KvFormat;
import dev.millrace.inference.backend.Rotary;
import dev.millrace.inference.backend.Step;
import dev.millrace.inference.backend.Tensor;
import dev.millrace.inference.backend.UniformNetwork;
import dev.millrace.inference.backend.Weight;
import dev.millrace.inference.backend.WholeNetwork;
import dev.millrace.inference.checkpoint.ModelConfig;
import dev.millrace.inference.checkpoint.WeightFormat;
import dev.millrace.inference.model.LlamaWeights.Absent;
import dev.millrace.inference.model.LlamaWeights.Block;
import dev.millrace.inference.model.LlamaWeights.Heads;
import dev.millrace.inference.model.LlamaWeights.Matrix;
import dev.millrace.inference.model.LlamaWeights.SwiGlu;
import dev.millrace.inference.model.LlamaWorkspace.GateUp;
import dev.millrace.inference.model.LlamaWorkspace.Qkv;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * Llama and nemotron-nas, which differ only in what their blocks are made of. {@link #forward} is
 * the network from top to bottom. Each part of a block reads the normed state and leaves its result
 * in {@code delta}, which the next norm adds to the state first: so a backend can do both in one
 * go.
 */
final class LlamaModel implements Model {
  private final ModelConfig config;
  private final WeightSource source;
  private final Backend backend;
  private final LlamaWeights weights;
  private final Rotary rotary;
  private final @Nullable UniformNetwork uniform;
  private @Nullable LlamaWorkspace workspace;
  private @Nullable Ready ready;

  /** A backend's way to run all of the network over a cache. */
  private record Ready(KvCache cache, WholeNetwork network) {}

  /** Owns the source from here on. */
  LlamaModel(ModelConfig config, WeightSource source, Backend backend) {
    this.config = config;
    this.source = source;
    this.backend = backend;
    this.weights = LlamaWeights.load(config, source);
    this.rotary = Rope.of(config.rope(), config.headDim());
    this.uniform = weights.uniform(config, rotary);
  }

  @Override
  public ModelConfig config() {
    return config;
  }

  @Override
  public KvCache kvCache(int blocks, KvFormat format) {
    List<Integer> kvHeads = config.kvHeads();
    KvCache cache =
        format == KvFormat.FP8
            ? backend.fp8KvCache(kvHeads, config.headDim(), blocks, weights.kvScales())
            : backend.kvCache(kvHeads, config.headDim(), blocks);
    WholeNetwork whole = uniform == null ? null : backend.whole(uniform, cache);
    ready = whole == null ? null : new Ready(cache, whole);
    return cache;
  }

  @Override
  public Footprint footprint(KvCache cache) {
    List<Weight> body = weights.body();
    long bytes = 0;
    long count = 0;
    for (Weight weight : body) {
      bytes += bytes(weight);
      count += count(weight);
    }
    Weight output = weights.output();
    WeightFormat format = body.isEmpty() ? output.format() : body.getFirst().format();
    return new Footprint(bytes, count, bytes(output), count(output), cache.tokenBytes(), format);
  }

  private static long count(Weight weight) {
    return (long) weight.rows() * weight.columns();
  }

  private static long bytes(Weight weight) {
    return weight.format().bytes(count(weight));
  }

  @Override
  public void reserve(int tokens, int logitRows) {
    workspace(tokens, logitRows);
  }

  @Override
  public Tensor forward(Step step, KvCache cache) {
    LlamaWorkspace w = workspace(step.tokens(), step.logitRows());
    backend.embed(step, weights.embedding(), w.state);
    if (ready != null && ready.cache == cache && ready.network.run(step, w.state, w.logits)) {
      return w.logits;
    }
    w.deltaPending = false;
    for (int layer = 0; layer < weights.blocks().size(); layer++) {
      Block block = weights.blocks().get(layer);
      switch (block.attention()) {
        case Heads heads -> attention(step, w, heads, cache, layer);
        case Matrix matrix -> matrix(step, w, matrix);
        case Absent absent -> {}
      }
      switch (block.feedForward()) {
        case SwiGlu swiGlu -> feedForward(step, w, swiGlu, layer);
        case Matrix matrix -> matrix(step, w, matrix);
        case Absent absent -> {}
      }
    }
    return logits(step, w);
  }

  private void attention(Step step, LlamaWorkspace w, Heads heads, KvCache cache, int layer) {
    int rows = step.tokens();
    Qkv qkv = w.qkv(layer);
    Weight o = heads.o().weight();
    Tensor normed =
        backend.inputOf(w.normed, heads.q().weight(), heads.k().weight(), heads.v().weight());
    norm(step, w, heads.norm(), normed);
    backend.qkv(
        normed, rows, heads.q().into(qkv.q()), heads.k().into(qkv.k()), heads.v().into(qkv.v()));
    backend.ropeAndStore(step, rotary, qkv.q(), qkv.k(), qkv.v(), cache, layer);
    Tensor attended = backend.inputOf(w.attended, o);
    backend.attention(step, qkv.q(), cache, layer, attended);
    backend.linear(attended, rows, o, heads.o().bias(), w.delta);
    w.deltaPending = true;
  }

  private void feedForward(Step step, LlamaWorkspace w, SwiGlu swiGlu, int layer) {
    int rows = step.tokens();
    GateUp gateUp = w.gateUp(layer);
    Weight down = swiGlu.down().weight();
    Tensor normed = backend.inputOf(w.normed, swiGlu.gate().weight(), swiGlu.up().weight());
    norm(step, w, swiGlu.norm(), normed);
    Tensor gated = backend.inputOf(gateUp.gate(), down);
    Projection gate = swiGlu.gate().into(gateUp.gate());
    backend.gateUp(normed, rows, gate, swiGlu.up().into(gateUp.up()), gated);
    backend.linear(gated, rows, down, swiGlu.down().bias(), w.delta);
    w.deltaPending = true;
  }

  private void matrix(Step step, LlamaWorkspace w, Matrix matrix) {
    Tensor normed = backend.inputOf(w.normed, matrix.weight());
    norm(step, w, matrix.norm(), normed);
    backend.linear(normed, step.tokens(), matrix.weight(), null, w.delta);
    w.deltaPending = true;
  }

  /** normed = rmsNorm(state + what the part before left). */
  private void norm(Step step, LlamaWorkspace w, Tensor weight, Tensor normed) {
    int rows = step.tokens();
    if (w.deltaPending) {
      backend.addRmsNorm(w.state, w.delta, rows, weight, config.rmsNormEps(), normed);
    } else {
      backend.rmsNorm(w.state, rows, weight, config.rmsNormEps(), normed);
    }
  }

  private Tensor logits(Step step, LlamaWorkspace w) {
    int rows = step.logitRows();
    if (rows > 0) {
      if (w.deltaPending) {
        backend.add(w.state, w.delta, step.tokens());
      }
      backend.logitRows(step, w.state, w.last);
      backend.rmsNorm(w.last, rows, weights.norm(), config.rmsNormEps(), w.last);
      backend.linear(w.last, rows, weights.output(), null, w.logits);
    }
    return w.logits;
  }

  private LlamaWorkspace workspace(int tokens, int logitRows) {
    LlamaWorkspace w = workspace;
    if (w == null || !w.fits(tokens, logitRows)) {
      if (w != null) {
        w.free();
      }
      w = new LlamaWorkspace(backend, config, tokens, logitRows, w);
      workspace = w;
    }
    return w;
  }

  @Override
  public void close() {
    source.close();
  }
}
