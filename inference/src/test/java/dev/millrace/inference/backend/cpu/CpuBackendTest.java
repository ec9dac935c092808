package dev.millrace.inference.backend.cpu;

import dev.millrace.inference.backend.Backend;
import dev.millrace.inference.backend.BackendTest;

class CpuBackendTest extends BackendTest {
  @Override
  protected Backend open() {
    return new CpuBackend(2);
  }

  @Override
  protected boolean hasFp8Cache() {
    return false;
  }
}
