package dev.millrace.inference.model;

import dev.millrace.inference.backend.Tensor;
import dev.millrace.inference.backend.Weight;
import java.util.List;

/** Where a network gets its weights from, by their Hugging Face names; closed with the network. */
interface WeightSource extends AutoCloseable {
  /** The matrix of that name on the backend, never quantised: embedding and output. */
  Weight matrix(String name, int rows, int columns);

  /**
   * Linear layers that read one input, on the backend: [rows = outputs, columns = inputs] each. If
   * they are quantised, then with one scale of their input.
   */
  List<Weight> layers(int columns, List<Layer> layers);

  /**
   * A linear layer.
   *
   * @param module its name; that of the matrix is {@code module.weight}
   * @param rows outputs
   */
  record Layer(String module, int rows) {
    String weight() {
      return module + ".weight";
    }
  }

  /** The vector of that name on the backend, [1, length]. */
  Tensor vector(String name, int length);

  /**
   * What keys or values of FP8 are multiplied by, by the name of its tensor; 1 if none is there.
   */
  float kvScale(String name);

  @Override
  void close();
}
