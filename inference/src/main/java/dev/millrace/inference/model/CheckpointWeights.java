package dev.millrace.inference.model;

import dev.millrace.inference.backend.Backend;
import dev.millrace.inference.backend.Tensor;
import dev.millrace.inference.backend.Weight;
import dev.millrace.inference.checkpoint.Checkpoint;
import dev.millrace.inference.checkpoint.InvalidCheckpointException;
import dev.millrace.inference.checkpoint.QuantizationConfig;
import dev.millrace.inference.checkpoint.WeightData;
import dev.millrace.inference.checkpoint.WeightFormat;
import java.lang.foreign.Arena;
import java.util.ArrayList;
import java.util.List;

/**
 * The weights of a checkpoint, each checked for its shape. Owns the checkpoint.
 *
 * @param precision of linear layers
 */
record CheckpointWeights(
    Checkpoint checkpoint, QuantizationConfig quantization, Precision precision, Backend backend)
    implements WeightSource {
  @Override
  public Weight matrix(String name, int rows, int columns) {
    return backend.weight(widened(read(name, rows, columns)));
  }

  @Override
  public List<Weight> layers(int columns, List<Layer> layers) {
    List<WeightData> matrices = new ArrayList<>();
    for (Layer layer : layers) {
      matrices.add(read(layer.weight(), layer.rows(), columns));
    }
    return precise(layers, matrices).stream().map(backend::weight).toList();
  }

  private List<WeightData> precise(List<Layer> layers, List<WeightData> matrices) {
    boolean stored = matrices.stream().anyMatch(m -> m.format() == WeightFormat.F8_E4M3);
    return switch (precision) {
      case AS_STORED -> Fp8.shareInput(matrices);
      case BF16 -> matrices.stream().map(CheckpointWeights::widened).toList();
      case FP8 ->
          stored || layers.stream().anyMatch(l -> quantization.excludes(l.module()))
              ? Fp8.shareInput(matrices)
              : Fp8.quantise(matrices, Arena.ofAuto());
    };
  }

  // What is made lives as long as a backend refers to it: one that brings it to a card does not.
  private static WeightData widened(WeightData matrix) {
    return matrix.format() == WeightFormat.F8_E4M3 ? Fp8.widen(matrix, Arena.ofAuto()) : matrix;
  }

  private WeightData read(String name, int rows, int columns) {
    WeightData matrix = checkpoint.tensor(name, rows, columns);
    if (matrix.format() == WeightFormat.F8_E4M3 && !quantization.weights()) {
      throw new InvalidCheckpointException(
          "tensor %s is FP8, but neither config.json nor hf_quant_config.json says how it was quantised: this version reads FP8 of NVIDIA's Model Optimizer"
              .formatted(name));
    }
    return matrix;
  }

  @Override
  public Tensor vector(String name, int length) {
    return backend.vector(checkpoint.tensor(name, length));
  }

  @Override
  public float kvScale(String name) {
    return checkpoint.has(name) ? checkpoint.scale(name) : 1;
  }

  @Override
  public void close() {
    checkpoint.close();
  }
}
