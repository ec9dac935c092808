package dev.millrace.inference.backend.cuda;

import dev.millrace.inference.backend.RandomNumbers;
import dev.millrace.inference.backend.Tensor;
import dev.millrace.inference.backend.Weight;
import dev.millrace.inference.checkpoint.E4m3;
import dev.millrace.inference.checkpoint.Quantization;
import dev.millrace.inference.checkpoint.WeightData;
import dev.millrace.inference.checkpoint.WeightFormat;
import dev.millrace.kernels.CublasLt;
import dev.millrace.kernels.Fp8Kernels;
import dev.millrace.kernels.Rows;
import dev.millrace.kernels.Stream;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.Objects;
import org.jspecify.annotations.Nullable;

/**
 * FP8 layers on a GPU: their weights, what they read, and their products. Part of a {@link
 * CudaBackend}, which owns and closes it. GPUs without units for FP8 get the weights as bfloat16,
 * and nothing is rounded there.
 *
 * <p>An input whose scale the checkpoint does not give has one for each row: then a row depends on
 * itself alone, which one scale for a batch would not give, and large rows cost small ones nothing.
 * The library's products that multiply rows of the result by it are slower than those that do not,
 * so it is left to what reads the result: {@link #take}. Whatever else happens to the result first
 * has a kernel multiply it: {@link #settle}.
 */
final class CudaFp8 implements AutoCloseable {
  /** The first GPUs with units for FP8. */
  private static final int CAPABILITY = 89;

  private final GpuMemory memory;
  private final CublasLt products;
  private final @Nullable OwnProducts own;
  private final Stream stream;
  private final Fp8Kernels kernels = new Fp8Kernels();
  private final boolean units;
  private final Scratch rounded;
  private final Scratch scales;
  private int widest;
  // Whose numbers the memory for inputs holds.
  private @Nullable CudaInput held;
  // Whose rows are still to be multiplied by the scales of the input; null: none.
  private @Nullable Result unscaled;

  private record Result(Rows at, int rows, int columns) {
    boolean is(int rows, CudaTensor... parts) {
      long next = at.address();
      for (CudaTensor part : parts) {
        if (part.address() != next || part.stride() != at.stride()) {
          return false;
        }
        next += (long) part.columns() * Short.BYTES;
      }
      return rows == this.rows && next == at.address() + (long) columns * Short.BYTES;
    }
  }

  /**
   * @param own null: the library computes all products
   */
  CudaFp8(
      GpuMemory memory,
      CublasLt products,
      @Nullable OwnProducts own,
      Stream stream,
      int capability) {
    this.memory = memory;
    this.products = products;
    this.own = own;
    this.stream = stream;
    this.units = capability >= CAPABILITY;
    this.rounded = new Scratch(memory, "inputs of FP8 layers");
    this.scales = new Scratch(memory, "scales of inputs of FP8 layers");
    memory.beforeCopies(this::settle);
  }

  Fp8Kernels kernels() {
    return kernels;
  }

  // Weights.

  /** Whether a matrix of that shape is multiplied as FP8 here; otherwise it becomes bfloat16. */
  boolean multiplies(int rows, int columns) {
    return units && rows % CublasLt.FP8_ALIGNMENT == 0 && columns % CublasLt.FP8_ALIGNMENT == 0;
  }

  /** A matrix of FP8 on the GPU. */
  CudaWeight weight(WeightData matrix) {
    Quantization quantization = Objects.requireNonNull(matrix.quantization());
    int rows = matrix.rows();
    int columns = matrix.columns();
    long elements = (long) rows * columns;
    String what = "the weight " + matrix.name();
    if (multiplies(rows, columns)) {
      widest = Math.max(widest, columns);
      long address = memory.allocate(what, elements);
      memory.upload(address, matrix.data());
      return new CudaWeight(address, WeightFormat.F8_E4M3, rows, columns, quantization);
    }
    long address = memory.allocate(what, elements * Short.BYTES);
    long buffer = memory.allocate("a buffer for conversion", GpuMemory.stageBytes());
    memory.uploadThrough(
        buffer,
        matrix.data(),
        (offset, bytes) ->
            kernels.widen(
                buffer, address + offset * Short.BYTES, bytes, quantization.scale(), stream));
    memory.free(buffer);
    // A product may read weights before the kernels that come before it have ended.
    stream.synchronize();
    return new CudaWeight(address, WeightFormat.BF16, rows, columns, null);
  }

  /** Made-up numbers over [-{@code spread}, {@code spread}]. */
  CudaWeight random(int rows, int columns, float spread, long seed) {
    if (!multiplies(rows, columns)) {
      return weight(RandomNumbers.matrix(rows, columns, WeightFormat.F8_E4M3, spread, seed));
    }
    widest = Math.max(widest, columns);
    long elements = (long) rows * columns;
    long address = memory.allocate("a made-up weight", elements);
    kernels.random(address, elements, seed, stream);
    stream.synchronize(); // as in weight
    return new CudaWeight(
        address,
        WeightFormat.F8_E4M3,
        rows,
        columns,
        RandomNumbers.quantization(WeightFormat.F8_E4M3, spread));
  }

  /** Takes what inputs of so many rows need. */
  void reserve(int rows) {
    if (widest > 0) {
      room(rows, widest);
    }
  }

  // Inputs.

  /** See {@link dev.millrace.inference.backend.Backend#inputOf}. */
  Tensor inputOf(Tensor room, Weight... readers) {
    CudaWeight first = (CudaWeight) readers[0];
    Quantization quantization = first.quantization();
    if (quantization == null) {
      return room;
    }
    for (Weight reader : readers) {
      Quantization other = ((CudaWeight) reader).quantization();
      if (other == null || other.inputScale() != quantization.inputScale()) {
        return room;
      }
    }
    return new CudaInput(this, (CudaTensor) room, quantization);
  }

  /** Where a kernel is to put the rows of an input. */
  Fp8Kernels.Rounded begin(CudaInput input, int rows) {
    held = input;
    return room(rows, input.columns(), input.quantization());
  }

  private Fp8Kernels.Rounded room(int rows, int columns, Quantization quantization) {
    room(rows, columns);
    return new Fp8Kernels.Rounded(rounded.address(), scales.address(), quantization.inputScale());
  }

  private void room(int rows, int columns) {
    settle();
    rounded.of((long) rows * columns);
    scales.of((long) rows * Float.BYTES);
  }

  /** Rounds what was put into the room of an input as bfloat16. */
  void round(CudaInput input, int rows) {
    if (rows > 0) {
      kernels.round(input.room().asRows(), begin(input, rows), rows, input.columns(), stream);
    }
  }

  float[] toHost(CudaInput input, int rows) {
    check(input);
    int columns = input.columns();
    float[] numbers = new float[Math.multiplyExact(rows, columns)];
    try (Arena arena = Arena.ofShared()) {
      MemorySegment codes = arena.allocate(numbers.length);
      MemorySegment each = arena.allocate((long) rows * Float.BYTES, Float.BYTES);
      memory.download(rounded.address(), codes);
      memory.download(scales.address(), each);
      Quantization q = input.quantization();
      for (int i = 0; i < numbers.length; i++) {
        float scale =
            q.fixed() ? q.inputScale() : each.getAtIndex(ValueLayout.JAVA_FLOAT, i / columns);
        numbers[i] = E4m3.decode(codes.get(ValueLayout.JAVA_BYTE, i)) * scale;
      }
    }
    return numbers;
  }

  private void check(CudaInput input) {
    // Not equals: another input may look the same.
    if (held != input) {
      throw new IllegalStateException("the memory of this FP8 input was taken over by another");
    }
  }

  // Products.

  /**
   * out = weight · x, but for the scales of rows, which {@link #take} gives to what reads it.
   *
   * @param x an input that is held, or bfloat16, which is rounded first
   * @param weight the first of several that follow one another and multiply alike, or the only one
   * @param outputs of all of them
   */
  void multiply(Tensor x, int rows, CudaWeight weight, int outputs, CudaTensor out) {
    settle();
    Quantization quantization = Objects.requireNonNull(weight.quantization());
    int inputs = weight.columns();
    if (x instanceof CudaInput input) {
      check(input);
    } else {
      held = null;
      Fp8Kernels.Rounded to = room(rows, inputs, quantization);
      kernels.round(((CudaTensor) x).asRows(), to, rows, inputs, stream);
    }
    if (out.type() != CudaTensor.Type.BF16) {
      throw new IllegalArgumentException("FP8 layers have results of bfloat16, not " + out.type());
    }
    Rows from = new Rows(rounded.address(), inputs);
    Rows to = out.asRows();
    long at = weight.address();
    float scale = quantization.scale();
    CublasLt.Output bf16 = CublasLt.Output.BF16;
    float both = quantization.fixed() ? scale * quantization.inputScale() : scale;
    long each = quantization.fixed() ? 0 : scales.address();
    if (own == null || !own.multiplyFp8(from, rows, at, outputs, inputs, to, both, each)) {
      products.multiplyFp8(from, rows, at, outputs, inputs, to, bf16, both, stream);
      unscaled = quantization.fixed() ? null : new Result(to, rows, outputs);
    }
  }

  /**
   * What the next kernel multiplies the rows of the last result by, if that is what it reads.
   *
   * @param parts of the result, in the order in which they lie side by side; all of it
   * @return float [rows] on the device; 0: nothing, the result is whole
   */
  long take(int rows, CudaTensor... parts) {
    if (unscaled == null || !unscaled.is(rows, parts)) {
      settle();
      return 0;
    }
    unscaled = null;
    return scales.address();
  }

  /** Makes the last result whole, if it is not. */
  void settle() {
    Result result = unscaled;
    if (result != null) {
      unscaled = null;
      kernels.scaleRows(result.at, scales.address(), result.rows, result.columns, stream);
    }
  }

  /** Leaves the last result as it is: nobody reads it any more. */
  void forget() {
    unscaled = null;
  }

  /** As {@link #forget()}, if it lies in memory that is given back. */
  void forget(long address, long bytes) {
    if (unscaled != null
        && unscaled.at.address() >= address
        && unscaled.at.address() < address + bytes) {
      unscaled = null;
    }
  }

  /** Whether the rows of the last result are still to be multiplied. */
  boolean isUnscaled() {
    return unscaled != null;
  }

  @Override
  public void close() {
    kernels.close();
  }
}
