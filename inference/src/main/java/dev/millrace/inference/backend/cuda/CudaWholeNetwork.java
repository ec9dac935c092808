package dev.millrace.inference.backend.cuda;

import dev.millrace.inference.backend.DeviceException;
import dev.millrace.inference.backend.Rotary;
import dev.millrace.inference.backend.Step;
import dev.millrace.inference.backend.Tensor;
import dev.millrace.inference.backend.UniformNetwork;
import dev.millrace.inference.backend.Weight;
import dev.millrace.inference.backend.WholeNetwork;
import dev.millrace.inference.checkpoint.Quantization;
import dev.millrace.kernels.BeginKernels;
import dev.millrace.kernels.CudaException;
import dev.millrace.kernels.Stream;
import dev.millrace.kernels.WholeStepKernels;
import dev.millrace.kernels.WholeStepKernels.Heads;
import dev.millrace.kernels.WholeStepKernels.Inputs;
import dev.millrace.kernels.WholeStepKernels.Layer;
import dev.millrace.kernels.WholeStepKernels.Matrix;
import dev.millrace.kernels.WholeStepKernels.Network;
import java.lang.foreign.Arena;
import java.util.ArrayList;
import java.util.List;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Decode steps of few rows of one network as one kernel each. What it works in belongs to the
 * backend's memory and goes with the backend.
 */
final class CudaWholeNetwork implements WholeNetwork {
  private static final Logger LOG = LoggerFactory.getLogger(CudaWholeNetwork.class);

  /**
   * Up to so many rows of FP8 a step as one kernel is faster than kernel by kernel, on an H200; of
   * bfloat16 it is with all that it takes.
   */
  private static final int MOST_FP8_ROWS = 2;

  private final CudaAttention attention;
  private final Operands operands;
  private final WholeStepKernels kernels;
  private final Stream stream;
  private final Network network;
  private final Rotary rotary;
  private final int mostRows;
  private final long norm;
  private final long output;
  private final long memory;
  private boolean refused;

  private CudaWholeNetwork(
      CudaAttention attention,
      Operands operands,
      WholeStepKernels kernels,
      Stream stream,
      Network network,
      UniformNetwork of,
      int mostRows,
      long memory) {
    this.attention = attention;
    this.operands = operands;
    this.kernels = kernels;
    this.stream = stream;
    this.network = network;
    this.rotary = of.rotary();
    this.mostRows = mostRows;
    this.norm = operands.floats(of.norm()).address();
    this.output = ((CudaWeight) of.output()).address();
    this.memory = memory;
  }

  /** Most rows of a step for which this is the faster way. */
  static int fastUpTo(UniformNetwork network) {
    boolean fp8 =
        network.blocks().stream()
            .map(block -> (CudaWeight) block.attention().q())
            .anyMatch(q -> q.quantization() != null);
    return fp8 ? MOST_FP8_ROWS : WholeStepKernels.MOST_ROWS;
  }

  /**
   * Null where there is no kernel for the network, or no room for what it works in.
   *
   * @param mostRows of a step
   */
  static @Nullable CudaWholeNetwork of(
      CudaAttention attention,
      Operands operands,
      GpuMemory memory,
      WholeStepKernels kernels,
      Stream stream,
      UniformNetwork network,
      CudaKvCache cache,
      int mostRows) {
    Network shape = shape(network, cache);
    if (shape == null) {
      return null;
    }
    int rows = Math.min(mostRows, WholeStepKernels.MOST_ROWS);
    while (rows > 0 && !kernels.takes(shape, rows)) {
      rows--;
    }
    if (rows == 0) {
      return null;
    }
    long bytes = kernels.bytes(shape);
    long address;
    try {
      address = memory.allocate("what steps as one kernel work in", bytes);
    } catch (DeviceException e) {
      LOG.warn("Decode steps are no single kernels: {}", e.getMessage());
      return null;
    }
    memory.zero(address, bytes);
    try (Arena arena = Arena.ofShared()) {
      memory.upload(address, WholeStepKernels.table(layers(operands, network, cache), arena));
    }
    LOG.info("Decode steps of up to {} sequences are one kernel each", rows);
    return new CudaWholeNetwork(
        attention, operands, kernels, stream, shape, network, rows, address);
  }

  /** What the kernels are told of a network; null if it is not one that they are for. */
  private static @Nullable Network shape(UniformNetwork network, CudaKvCache cache) {
    if (network.blocks().isEmpty()
        || network.rotary().pairs() * 2 != cache.headDim()
        || ((CudaWeight) network.output()).quantization() != null) {
      return null;
    }
    UniformNetwork.Block first = network.blocks().getFirst();
    int inner = first.feedForward().gate().rows();
    int kvHeads = cache.kvHeads(0);
    boolean fp8 = ((CudaWeight) first.attention().q()).quantization() != null;
    for (int i = 0; i < network.blocks().size(); i++) {
      UniformNetwork.Block block = network.blocks().get(i);
      if (cache.kvHeads(i) != kvHeads || block.feedForward().gate().rows() != inner) {
        return null;
      }
      for (List<Weight> readers : readers(block)) {
        Quantization shared = ((CudaWeight) readers.getFirst()).quantization();
        for (Weight reader : readers) {
          Quantization own = ((CudaWeight) reader).quantization();
          if ((own != null) != fp8
              || own != null && shared != null && own.inputScale() != shared.inputScale()) {
            return null;
          }
        }
      }
    }
    return new Network(
        network.blocks().size(),
        network.output().columns(),
        inner,
        new Heads(network.heads(), kvHeads, cache.headDim()),
        network.output().rows(),
        network.epsilon(),
        fp8,
        cache.numberBytes() == Byte.BYTES);
  }

  /** The matrices of a block, by the input that they read. */
  private static List<List<Weight>> readers(UniformNetwork.Block block) {
    UniformNetwork.Attention a = block.attention();
    UniformNetwork.FeedForward f = block.feedForward();
    return List.of(
        List.of(a.q(), a.k(), a.v()), List.of(a.o()), List.of(f.gate(), f.up()), List.of(f.down()));
  }

  private static List<Layer> layers(Operands operands, UniformNetwork network, CudaKvCache cache) {
    List<Layer> layers = new ArrayList<>();
    for (int i = 0; i < network.blocks().size(); i++) {
      UniformNetwork.Attention a = network.blocks().get(i).attention();
      UniformNetwork.FeedForward f = network.blocks().get(i).feedForward();
      layers.add(
          new Layer(
              operands.floats(a.norm()).address(),
              matrix(a.q()),
              matrix(a.k()),
              matrix(a.v()),
              matrix(a.o()),
              operands.floats(f.norm()).address(),
              matrix(f.gate()),
              matrix(f.up()),
              matrix(f.down()),
              cache.layer(i, network.heads())));
    }
    return layers;
  }

  private static Matrix matrix(Weight weight) {
    CudaWeight w = (CudaWeight) weight;
    Quantization q = w.quantization();
    return q == null
        ? new Matrix(w.address(), 1, 0)
        : new Matrix(w.address(), q.scale(), q.inputScale());
  }

  @Override
  public boolean run(Step step, Tensor state, Tensor logits) {
    CudaStep s = (CudaStep) step;
    if (refused || !s.isDecode() || s.tokens() > mostRows) {
      return false;
    }
    BeginKernels.Angles angles = attention.angles(s, rotary);
    Inputs inputs =
        new Inputs(
            s.tokens(),
            angles.cos(),
            angles.sin(),
            s.arrays.slots(),
            s.arrays.begins(),
            s.arrays.sequences(),
            operands.contiguous(state).address(),
            operands.floats(logits).address());
    if (s.recorded()) {
      s.leave(() -> launch(inputs));
      return true;
    }
    return launch(inputs);
  }

  /** Whether the driver takes it. */
  private boolean launch(Inputs inputs) {
    if (refused) {
      return false;
    }
    try {
      kernels.launch(network, memory, norm, output, inputs, stream);
    } catch (CudaException e) {
      if (e.sticky()) {
        throw e;
      }
      // It may be that not all of the GPU is this process's.
      LOG.warn("The driver does not run a step as one kernel: layer by layer from here on", e);
      refused = true;
      return false;
    }
    return true;
  }
}
