package dev.millrace.inference.backend.cuda;

import dev.millrace.inference.backend.Backend;

/** The GPU where it may compute prompts over an FP8 cache in e4m3. */
class CudaBackendE4m3Test extends CudaBackendTest {
  @Override
  protected Backend open() {
    return Gpu.openForE4m3();
  }

  @Override
  protected boolean attendsInE4m3(int headDim) {
    return headDim == 128 && Gpu.attendsInE4m3();
  }
}
