package dev.millrace.inference.backend.cuda;

import dev.millrace.inference.backend.Backend;
import dev.millrace.inference.backend.BackendTest;
import dev.millrace.inference.checkpoint.WeightData;
import dev.millrace.inference.checkpoint.WeightFormat;

class CudaBackendTest extends BackendTest {
  @Override
  protected Backend open() {
    return Gpu.open();
  }

  /**
   * That of bfloat16 activations: 2^-9 for each rounding, squared, a few of them, and more where a
   * bias cancels most of a sum that was rounded before.
   */
  @Override
  protected double tolerance() {
    return 2e-4;
  }

  @Override
  protected float kept(float weight) {
    return Float.intBitsToFloat(CudaTensor.bf16(weight) << 16);
  }

  /** Rounding the other way now and then, and bfloat16 before and after it. */
  @Override
  protected double roundedError() {
    return 2e-4;
  }

  @Override
  protected boolean roundsInputs(WeightData weight) {
    return Gpu.hasFp8() && weight.rows() % 16 == 0 && weight.columns() % 16 == 0;
  }

  @Override
  protected int[][] rowsAlike(WeightFormat format) {
    return Gpu.rowsAlike(format == WeightFormat.F8_E4M3);
  }
}
