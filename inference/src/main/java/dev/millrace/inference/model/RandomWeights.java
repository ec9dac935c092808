package dev.millrace.inference.model;

import dev.millrace.inference.backend.Backend;
import dev.millrace.inference.backend.Tensor;
import dev.millrace.inference.backend.Weight;
import dev.millrace.inference.checkpoint.WeightData;
import dev.millrace.inference.checkpoint.WeightFormat;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.Arrays;
import java.util.List;

/**
 * Made-up weights, the same ones for the same seed. Matrices keep the size of what goes through
 * them, norms are one and biases zero, so that activations are neither huge nor nothing.
 *
 * @param format of linear layers; where that is FP8 embedding and output are bf16, as in a
 *     checkpoint
 */
record RandomWeights(long seed, WeightFormat format, Backend backend) implements WeightSource {
  @Override
  public Weight matrix(String name, int rows, int columns) {
    return make(name, rows, columns, format == WeightFormat.F8_E4M3 ? WeightFormat.BF16 : format);
  }

  @Override
  public List<Weight> layers(int columns, List<Layer> layers) {
    return layers.stream().map(l -> make(l.weight(), l.rows(), columns, format)).toList();
  }

  private Weight make(String name, int rows, int columns, WeightFormat as) {
    // An even spread over [-a, a] has the variance a² / 3.
    float spread = (float) Math.sqrt(3.0 / columns);
    return backend.randomWeight(rows, columns, as, spread, seed * 31 + name.hashCode());
  }

  @Override
  public Tensor vector(String name, int length) {
    float[] numbers = new float[length];
    Arrays.fill(numbers, name.endsWith(".bias") ? 0 : 1);
    MemorySegment data = Arena.ofAuto().allocateFrom(ValueLayout.JAVA_FLOAT, numbers);
    return backend.vector(new WeightData(name, WeightFormat.F32, new int[] {length}, data));
  }

  @Override
  public float kvScale(String name) {
    return 1;
  }

  @Override
  public void close() {}
}
