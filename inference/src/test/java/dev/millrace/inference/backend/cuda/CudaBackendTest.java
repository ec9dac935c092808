package dev.millrace.inference.backend.cuda;

import dev.millrace.inference.backend.Backend;
import dev.millrace.inference.backend.BackendTest;

class CudaBackendTest extends BackendTest {
  @Override
  protected Backend open() {
    return Gpu.open();
  }

  /** That of bfloat16 activations: 2^-9 for each rounding, squared, and a few of them. */
  @Override
  protected double tolerance() {
    return 6e-5;
  }

  @Override
  protected float kept(float weight) {
    return Float.intBitsToFloat(CudaTensor.bf16(weight) << 16);
  }
}
