package dev.millrace.inference.model;

import dev.millrace.inference.backend.Backend;
import dev.millrace.inference.backend.Tensor;
import dev.millrace.inference.backend.Weight;
import dev.millrace.inference.checkpoint.Checkpoint;

/** The weights of a checkpoint, each checked for its shape. Owns the checkpoint. */
record CheckpointWeights(Checkpoint checkpoint, Backend backend) implements WeightSource {
  @Override
  public Weight matrix(String name, int rows, int columns) {
    return backend.weight(checkpoint.tensor(name, rows, columns));
  }

  @Override
  public Tensor vector(String name, int length) {
    return backend.vector(checkpoint.tensor(name, length));
  }

  @Override
  public void close() {
    checkpoint.close();
  }
}
