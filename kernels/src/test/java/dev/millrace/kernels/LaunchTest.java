package dev.millrace.kernels;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatCode;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import jcuda.driver.CUresult;
import org.junit.jupiter.api.Test;

/** What holds with no GPU. */
class LaunchTest {

  @Test
  void shouldSayWhichCallFailedWithWhichArguments() {
    assertThatThrownBy(
            () ->
                CudaException.check(
                    CUresult.CUDA_ERROR_INVALID_VALUE, "cuLaunchKernel", "norm", "7 blocks"))
        .isInstanceOf(CudaException.class)
        .hasMessage("cuLaunchKernel(norm, 7 blocks) failed: CUDA_ERROR_INVALID_VALUE (1)");
    assertThatCode(() -> CudaException.check(CUresult.CUDA_SUCCESS, "cuInit"))
        .doesNotThrowAnyException();
  }

  @Test
  void shouldRefuseAnEmptyShape() {
    for (int[] shape : new int[][] {{0, 8}, {8, 0}, {-1, 8}, {8, -1}}) {
      assertThatThrownBy(() -> new Shape(shape[0], shape[1]))
          .isInstanceOf(IllegalArgumentException.class)
          .hasMessageContaining(shape[0] + " rows of " + shape[1]);
    }
  }

  @Test
  void shouldCountMoreElementsThanAnIntHolds() {
    assertThat(new Shape(1 << 20, 1 << 15).count()).isEqualTo(1L << 35);
  }

  @Test
  void shouldCoverEveryElementWithFewBlocks() {
    assertThat(ActivationKernels.blocks(1)).isEqualTo(1);
    assertThat(ActivationKernels.blocks(256)).isEqualTo(1);
    assertThat(ActivationKernels.blocks(257)).isEqualTo(2);
    assertThat(ActivationKernels.blocks(1L << 40)).isEqualTo(4096);
  }

  @Test
  void shouldSayThatThereIsNoGpu() {
    assumeTrue(Device.count() == 0, "this machine has a GPU");
    assertThatThrownBy(() -> Device.open(0))
        .isInstanceOf(CudaException.class)
        .hasMessageContaining("CPU backend");
  }
}
