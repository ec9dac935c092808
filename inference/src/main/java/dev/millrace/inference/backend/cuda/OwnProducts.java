package dev.millrace.inference.backend.cuda;

import dev.millrace.kernels.CublasLt;
import dev.millrace.kernels.Device;
import dev.millrace.kernels.FewRowsKernels;
import dev.millrace.kernels.HopperProducts;
import dev.millrace.kernels.Rows;
import dev.millrace.kernels.Stream;
import org.jspecify.annotations.Nullable;

/**
 * Products that our own kernels multiply faster than the library, by what a GPU has of them: those
 * of few rows. Each sums in an order of its own. Part of a {@link CudaBackend}, which owns and
 * closes it.
 */
final class OwnProducts implements AutoCloseable {
  private final HopperProducts hopper;
  // Null where the GPU has too little shared memory for them.
  private final @Nullable FewRowsKernels fewRows;
  private final Stream stream;

  OwnProducts(Device device, Stream stream) {
    this.hopper = new HopperProducts(device.multiprocessors());
    this.fewRows =
        device.sharedBytes() < FewRowsKernels.sharedBytes()
            ? null
            : new FewRowsKernels(device.multiprocessors());
    this.stream = stream;
  }

  /**
   * As {@link FewRowsKernels#multiply}: few rows go there, more to Hopper's.
   *
   * @return whether there is a kernel for it; if not, nothing was computed
   */
  boolean multiply(
      Rows x, int rows, long weight, int outputs, int inputs, Rows out, CublasLt.Output type) {
    if (fewRows != null && FewRowsKernels.takes(x, rows, weight, inputs, Short.BYTES)) {
      fewRows.multiply(x, rows, weight, outputs, inputs, out, type, stream);
      return true;
    }
    if (hopper.takes(x, rows, weight, inputs, Short.BYTES)) {
      hopper.multiply(x, rows, weight, outputs, inputs, out, type, stream);
      return true;
    }
    return false;
  }

  /**
   * As {@link FewRowsKernels#multiplyFp8}, to results of bfloat16; Hopper's are the faster ones
   * here.
   *
   * @return whether there is a kernel for it; if not, nothing was computed
   */
  boolean multiplyFp8(
      Rows x, int rows, long weight, int outputs, int inputs, Rows out, float factor, long scales) {
    CublasLt.Output type = CublasLt.Output.BF16;
    if (hopper.takes(x, rows, weight, inputs, Byte.BYTES)) {
      hopper.multiplyFp8(x, rows, weight, outputs, inputs, out, type, factor, scales, stream);
      return true;
    }
    if (fewRows != null && FewRowsKernels.takes(x, rows, weight, inputs, Byte.BYTES)) {
      fewRows.multiplyFp8(x, rows, weight, outputs, inputs, out, type, factor, scales, stream);
      return true;
    }
    return false;
  }

  @Override
  public void close() {
    hopper.close();
    if (fewRows != null) {
      fewRows.close();
    }
  }
}
