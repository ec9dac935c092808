package dev.millrace.inference.model;

import dev.millrace.inference.backend.Tensor;
import dev.millrace.inference.backend.Weight;

/** Where a network gets its weights from, by their Hugging Face names; closed with the network. */
interface WeightSource extends AutoCloseable {
  /** The matrix of that name on the backend, [rows = outputs, columns = inputs]. */
  Weight matrix(String name, int rows, int columns);

  /** The vector of that name on the backend, [1, length]. */
  Tensor vector(String name, int length);

  @Override
  void close();
}
