package dev.millrace.inference.checkpoint;

import java.lang.foreign.MemorySegment;
import java.util.Arrays;

/**
 * A tensor of a checkpoint, still on disk: {@code data} is mapped memory that the {@link
 * Checkpoint} owns and that is gone once it is closed.
 *
 * @param name as the checkpoint calls it
 * @param shape [rows, columns] of a matrix, [length] of a vector; row-major
 * @param data little-endian numbers, exactly as many bytes as shape and format need; at any byte
 *     alignment
 */
public record WeightData(String name, WeightFormat format, int[] shape, MemorySegment data) {
  public WeightData {
    long elements = 1;
    for (int n : shape) {
      elements = Math.multiplyExact(elements, n);
    }
    if (data.byteSize() != format.bytes(elements)) {
      throw new IllegalArgumentException(
          "%s %s %s needs %d bytes, not %d"
              .formatted(
                  name, format, Arrays.toString(shape), format.bytes(elements), data.byteSize()));
    }
  }

  /** First dimension: outputs of a linear layer. */
  public int rows() {
    return shape[0];
  }

  /** Second dimension, inputs of a linear layer; 1 for a vector. */
  public int columns() {
    return shape.length == 1 ? 1 : shape[1];
  }

  /** All numbers, decoded one by one. */
  public float[] decode() {
    long elements = (long) rows() * columns();
    float[] out = new float[Math.toIntExact(elements)];
    for (int i = 0; i < out.length; i++) {
      out[i] = format.decode(data, i);
    }
    return out;
  }
}
