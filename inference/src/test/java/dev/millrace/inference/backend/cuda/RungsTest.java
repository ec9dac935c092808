package dev.millrace.inference.backend.cuda;

import static org.assertj.core.api.Assertions.assertThat;

import org.junit.jupiter.api.Test;

class RungsTest {
  @Test
  void shouldTimeProductsFromOneTokenToTheMost() {
    assertThat(CudaRunner.rungs(1)).containsExactly(1);
    assertThat(CudaRunner.rungs(64)).containsExactly(1, 2, 4, 8, 16, 24, 32, 48, 64);
    assertThat(CudaRunner.rungs(100)).containsExactly(1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 100);
  }
}
