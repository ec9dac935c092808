package dev.millrace.inference.backend.cuda;

import dev.millrace.inference.backend.Backend;
import dev.millrace.inference.backend.Tensor;
import dev.millrace.inference.backend.Weight;
import dev.millrace.inference.backend.cuda.CudaTensor.Type;
import dev.millrace.kernels.CublasLt;
import dev.millrace.kernels.ProductChoice;
import dev.millrace.kernels.Rows;
import dev.millrace.kernels.Stream;
import java.lang.foreign.MemorySegment;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * Matrix products of a {@link CudaBackend}: which way each goes, by format, rows and what was found
 * the fastest at start. Owns nothing.
 */
final class CudaProducts {
  /** Twice the largest cache of a GPU. */
  private static final long COLD_BYTES = 256L << 20;

  private final CublasLt library;
  private final @Nullable OwnProducts own;
  private final CudaFp8 fp8;
  private final GpuMemory memory;
  private final Stream stream;
  private final @Nullable ProductTimings timings;
  private final Operands operands;

  /**
   * @param own null: the library computes all of them
   * @param fp8 those of FP8 weights
   * @param timings that were kept, and where more are; null: nowhere
   */
  CudaProducts(
      CublasLt library,
      @Nullable OwnProducts own,
      CudaFp8 fp8,
      GpuMemory memory,
      Stream stream,
      @Nullable ProductTimings timings) {
    this.library = library;
    this.own = own;
    this.fp8 = fp8;
    this.memory = memory;
    this.stream = stream;
    this.timings = timings;
    this.operands = new Operands(fp8);
  }

  /**
   * Chooses the products' algorithms by time from here to {@link #endTiming}, but for those that
   * were kept.
   *
   * @param address of memory that may be overwritten meanwhile
   * @param bytes of it; less than twice the GPU's cache times products out of the cache
   */
  void beginTiming(long address, long bytes) {
    library.beginTiming(
        new ProductChoice() {
          @Override
          public void coolDown() {
            if (bytes > 0) {
              memory.zero(address, Math.min(bytes, COLD_BYTES));
            }
          }

          @Override
          public void fetch(long from, MemorySegment to) {
            memory.download(from, to);
          }

          @Override
          public @Nullable String kept(String product) {
            return timings == null ? null : timings.get(product);
          }

          @Override
          public void keep(String product, String way) {
            if (timings != null) {
              timings.put(product, way);
            }
          }
        });
  }

  /** Keeps what was found, where there is a place for it. */
  void endTiming() {
    library.endTiming();
    if (timings != null) {
      timings.save();
    }
  }

  /** out = weight · x. */
  void multiply(Tensor x, int rows, Weight weight, Tensor out) {
    CudaWeight w = (CudaWeight) weight;
    multiply(x, rows, w, w.rows(), (CudaTensor) out);
  }

  /** By a weight, or by several that follow one another. */
  private void multiply(Tensor x, int rows, CudaWeight weight, int outputs, CudaTensor out) {
    if (weight.quantization() != null) {
      fp8.multiply(x, rows, weight, outputs, out);
      return;
    }
    CublasLt.Output type = out.type() == Type.F32 ? CublasLt.Output.F32 : CublasLt.Output.BF16;
    Rows from = operands.halves(x).asRows();
    long at = weight.address();
    int inputs = weight.columns();
    if (own == null || !own.multiply(from, rows, at, outputs, inputs, out.asRows(), type)) {
      library.multiply(from, rows, at, outputs, inputs, out.asRows(), type, stream);
    }
  }

  /**
   * Several projections as one, where weights follow one another and results lie side by side.
   *
   * @return whether they do; if not, nothing was computed
   */
  boolean together(Tensor x, int rows, List<Backend.Projection> parts) {
    int outputs = 0;
    for (int i = 0; i < parts.size(); i++) {
      Backend.Projection part = parts.get(i);
      CudaWeight weight = (CudaWeight) part.weight();
      if (part.bias() != null) {
        return false;
      }
      if (i > 0) {
        CudaTensor before = (CudaTensor) parts.get(i - 1).out();
        CudaTensor out = (CudaTensor) part.out();
        CudaWeight last = (CudaWeight) parts.get(i - 1).weight();
        if (last.end() != weight.address()
            || !last.multipliesAs(weight)
            || before.address() + (long) before.columns() * Short.BYTES != out.address()
            || before.stride() != out.stride()) {
          return false;
        }
      }
      outputs += weight.rows();
    }
    CudaWeight first = (CudaWeight) parts.getFirst().weight();
    multiply(x, rows, first, outputs, (CudaTensor) parts.getFirst().out());
    return true;
  }
}
