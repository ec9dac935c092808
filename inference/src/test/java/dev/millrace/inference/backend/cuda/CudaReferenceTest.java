package dev.millrace.inference.backend.cuda;

import dev.millrace.inference.backend.Backend;
import dev.millrace.inference.model.ReferenceTest;

class CudaReferenceTest extends ReferenceTest {
  @Override
  protected Backend open() {
    return Gpu.open();
  }

  /** That of bfloat16 through a few layers, at the worst position. */
  @Override
  protected double mostError() {
    return 8e-2;
  }

  @Override
  protected int clearPositions() {
    return 1;
  }

  @Override
  protected double mostFp8Error() {
    return 5e-2;
  }

  @Override
  protected boolean hasFp8Cache() {
    return true;
  }
}
