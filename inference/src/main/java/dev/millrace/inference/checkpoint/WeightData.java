package dev.millrace.inference.checkpoint;

import java.lang.foreign.MemorySegment;
import java.util.Arrays;
import org.jspecify.annotations.Nullable;

/**
 * A tensor of a checkpoint, still on disk: {@code data} is mapped memory that the {@link
 * Checkpoint} owns and that is gone once it is closed.
 *
 * @param name as the checkpoint calls it
 * @param shape [rows, columns] of a matrix, [length] of a vector; row-major
 * @param data little-endian numbers, exactly as many bytes as shape and format need; at any byte
 *     alignment
 * @param quantization of a matrix of {@link WeightFormat#F8_E4M3}, null of all others
 */
public record WeightData(
    String name,
    WeightFormat format,
    int[] shape,
    MemorySegment data,
    @Nullable Quantization quantization) {
  public WeightData {
    if ((format == WeightFormat.F8_E4M3) != (quantization != null)) {
      throw new IllegalArgumentException(name + " is " + format + ", its scales " + quantization);
    }
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

  /** Numbers that are what they are, without a scale. */
  public WeightData(String name, WeightFormat format, int[] shape, MemorySegment data) {
    this(name, format, shape, data, null);
  }

  /** First dimension: outputs of a linear layer. */
  public int rows() {
    return shape[0];
  }

  /** Second dimension, inputs of a linear layer; 1 for a vector. */
  public int columns() {
    return shape.length == 1 ? 1 : shape[1];
  }

  /** What a decoded number is multiplied by. */
  public float scale() {
    return quantization == null ? 1 : quantization.scale();
  }

  /** All numbers, decoded one by one, times their scale. */
  public float[] decode() {
    long elements = (long) rows() * columns();
    float[] out = new float[Math.toIntExact(elements)];
    float scale = scale();
    for (int i = 0; i < out.length; i++) {
      out[i] = format.decode(data, i) * scale;
    }
    return out;
  }
}
