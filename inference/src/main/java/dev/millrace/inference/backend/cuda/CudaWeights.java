package dev.millrace.inference.backend.cuda;

import dev.millrace.inference.checkpoint.WeightData;
import dev.millrace.inference.checkpoint.WeightFormat;
import dev.millrace.kernels.ConvertKernels;
import dev.millrace.kernels.Stream;

/**
 * Brings weights to the GPU of a {@link CudaBackend}, whose memory owns them: as bfloat16, or as
 * FP8 where the GPU multiplies it.
 */
record CudaWeights(GpuMemory memory, ConvertKernels converts, CudaFp8 fp8, Stream stream) {
  /** A matrix of a checkpoint; see {@link dev.millrace.inference.backend.Backend#weight}. */
  CudaWeight weight(WeightData matrix) {
    if (matrix.format() == WeightFormat.F8_E4M3) {
      return fp8.weight(matrix);
    }
    long elements = (long) matrix.rows() * matrix.columns();
    long address = memory.allocate("the weight " + matrix.name(), elements * Short.BYTES);
    if (matrix.format() == WeightFormat.BF16) {
      memory.upload(address, matrix.data());
    } else {
      convert(matrix, address);
    }
    return new CudaWeight(address, matrix.format(), matrix.rows(), matrix.columns(), null);
  }

  private void convert(WeightData matrix, long to) {
    boolean half = matrix.format() == WeightFormat.F16;
    int width = half ? Short.BYTES : Float.BYTES;
    long buffer = memory.allocate("a buffer for conversion", GpuMemory.stageBytes());
    memory.uploadThrough(
        buffer,
        matrix.data(),
        (offset, bytes) -> {
          long at = to + offset / width * Short.BYTES;
          if (half) {
            converts.fromHalf(buffer, at, bytes / width, stream);
          } else {
            converts.fromFloat(buffer, at, bytes / width, stream);
          }
        });
    memory.free(buffer);
    // A product may read weights before the kernels that come before it have ended.
    stream.synchronize();
  }

  /** Made-up numbers; see {@link dev.millrace.inference.backend.Backend#randomWeight}. */
  CudaWeight random(int rows, int columns, WeightFormat format, float spread, long seed) {
    if (format == WeightFormat.F8_E4M3) {
      return fp8.random(rows, columns, spread, seed);
    }
    if (format != WeightFormat.BF16) {
      throw new IllegalArgumentException(
          "the CUDA backend makes up weights of bf16 and FP8, no " + format);
    }
    long elements = (long) rows * columns;
    long address = memory.allocate("a made-up weight", elements * Short.BYTES);
    converts.random(address, elements, seed, spread, stream);
    stream.synchronize(); // as in convert
    return new CudaWeight(address, format, rows, columns, null);
  }
}
