package dev.millrace.inference.model;

import dev.millrace.inference.backend.Backend;
import dev.millrace.inference.backend.Tensor;
import dev.millrace.inference.backend.Weight;
import dev.millrace.inference.checkpoint.WeightFormat;
import java.util.List;

/**
 * Made-up weights of a network in which a small difference stays small, as in one that was trained:
 * what blocks add is little beside the state. As {@link RandomWeights}, but the embedding has a
 * deviation of 2, and what leaves a block is divided by sqrt(2 layers). {@code
 * src/test/python/rounded_llama.py} makes the same numbers.
 */
record DampedWeights(int layers, RandomWeights plain) implements WeightSource {
  private static final long SEED = 5;
  private static final double EMBEDDING = 2;

  static DampedWeights of(int layers, WeightFormat format, Backend backend) {
    return new DampedWeights(layers, new RandomWeights(SEED, format, backend));
  }

  @Override
  public Weight matrix(String name, int rows, int columns) {
    return name.contains("embed_tokens")
        ? make(name, rows, columns, WeightFormat.BF16, Math.sqrt(3) * EMBEDDING)
        : plain.matrix(name, rows, columns);
  }

  @Override
  public List<Weight> layers(int columns, List<Layer> layers) {
    double even = Math.sqrt(3.0 / columns);
    return layers.stream()
        .map(l -> make(l.weight(), l.rows(), columns, plain.format(), even * factor(l.module())))
        .toList();
  }

  private double factor(String module) {
    boolean leaves = module.endsWith("o_proj") || module.endsWith("down_proj");
    return leaves ? 1 / Math.sqrt(2.0 * layers) : 1;
  }

  private Weight make(String name, int rows, int columns, WeightFormat format, double spread) {
    long seed = plain.seed() * 31 + name.hashCode();
    return plain.backend().randomWeight(rows, columns, format, (float) spread, seed);
  }

  @Override
  public Tensor vector(String name, int length) {
    return plain.vector(name, length);
  }

  @Override
  public float kvScale(String name) {
    return plain.kvScale(name);
  }

  @Override
  public void close() {}
}
