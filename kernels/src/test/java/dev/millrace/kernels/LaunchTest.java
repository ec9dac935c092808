package dev.millrace.kernels;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatCode;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Path;
import java.util.List;
import java.util.Objects;
import java.util.stream.IntStream;
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
  void shouldSayThatTheProcessMustEndAfterSomeErrors() {
    for (int result :
        new int[] {CUresult.CUDA_ERROR_ILLEGAL_ADDRESS, CUresult.CUDA_ERROR_LAUNCH_FAILED}) {
      assertThatThrownBy(() -> CudaException.check(result, "cuStreamSynchronize"))
          .isInstanceOfSatisfying(CudaException.class, e -> assertThat(e.sticky()).isTrue())
          .hasMessageContaining("must be started anew");
    }
    assertThatThrownBy(
            () -> CudaException.check(CUresult.CUDA_ERROR_OUT_OF_MEMORY, "cuMemAlloc", "9 bytes"))
        .isInstanceOfSatisfying(CudaException.class, e -> assertThat(e.sticky()).isFalse())
        .hasMessageContaining("cuMemAlloc(9 bytes)");
  }

  @Test
  void shouldCoverEveryElementWithFewBlocks() {
    assertThat(ActivationKernels.blocks(1)).isEqualTo(1);
    assertThat(ActivationKernels.blocks(2048)).isEqualTo(1);
    assertThat(ActivationKernels.blocks(2049)).isEqualTo(2);
    assertThat(ConvertKernels.blocks(1)).isEqualTo(1);
    assertThat(ConvertKernels.blocks(257)).isEqualTo(2);
    assertThat(ConvertKernels.blocks(1L << 40)).isEqualTo(4096);
  }

  @Test
  void shouldMoveVectorsOnlyWhereAllRowsAllowIt() {
    assertThat(new Rows(256, 64).aligned(64)).isTrue();
    assertThat(new Rows(256, 64).aligned(60)).isFalse();
    assertThat(new Rows(256, 60).aligned(56)).isFalse();
    assertThat(new Rows(264, 64).aligned(64)).isFalse();
  }

  @Test
  void shouldStayWithinTheSharedMemoryOfEveryChip() {
    for (int headDim : AttentionKernels.HEAD_DIMS) {
      for (int bytes : new int[] {1, 2}) {
        assertThat(AttentionKernels.prefillShared(headDim, bytes)).isLessThan(98 << 10);
        // sm_86 and sm_89, sm_80, sm_90: of a block, of which the kernels' own variables take
        // little.
        for (int limit : new int[] {99 << 10, 163 << 10, 227 << 10}) {
          int stages = AttentionKernels.decodeStages(headDim, bytes, limit);
          int shared = AttentionKernels.decodeShared(headDim, bytes, stages);
          assertThat(shared).isLessThan(limit - (1 << 10));
          // The warps' shares are put together where the pipelines were.
          assertThat(shared).isGreaterThanOrEqualTo(4 * 16 * headDim * Float.BYTES);
        }
      }
    }
    assertThat(HopperPrefill.shared(128)).isLessThan(227 << 10);
    assertThat(E4m3Prefill.shared()).isLessThan(227 << 10);
    // As many on a multiprocessor as there are registers for, and what the chip keeps.
    assertThat(AttentionKernels.MOST_DECODE_BLOCKS * (HopperDecode.SHARED + (2 << 10)))
        .isLessThan(228 << 10);
  }

  @Test
  void shouldShareEachOfFewRowsOfLogitsOutAsLongAsAllRunAtOnce() {
    int[] rows = {1, 12, 13, 24, 25, 49, 50, 4096};
    assertThat(IntStream.of(rows).map(n -> SamplingKernels.blocks(n, 132)))
        .containsExactly(8, 8, 4, 4, 2, 2, 1, 1);
  }

  @Test
  void shouldSpreadADecodeOverAllMultiprocessors() {
    int least = 54 << 10;
    // As many as fit are as many as there have to be, or fewer.
    assertThat(AttentionKernels.spread(least, 4 * 132, 132, 227 << 10)).isEqualTo(least);
    assertThat(AttentionKernels.spread(least, 9 * 132, 132, 227 << 10)).isEqualTo(least);
    int two = AttentionKernels.spread(least, 132 + 1, 132, 227 << 10);
    assertThat(3 * two).isGreaterThan(228 << 10);
    assertThat(2 * two).isLessThan(220 << 10);
    assertThat(AttentionKernels.spread(least, 1, 132, 227 << 10)).isLessThan(227 << 10);
  }

  @Test
  void shouldShareOutputsOfProductsOutAmongHopperMultiprocessors() {
    // Nano-8B's, of 132 multiprocessors: those of few outputs in pairs.
    assertThat(HopperProducts.Tiling.of(6144, 132)).isEqualTo(new HopperProducts.Tiling(96, 2));
    assertThat(HopperProducts.Tiling.of(4096, 132)).isEqualTo(new HopperProducts.Tiling(64, 2));
    assertThat(HopperProducts.Tiling.of(28_672, 132)).isEqualTo(new HopperProducts.Tiling(112, 1));
    for (int outputs : new int[] {1, 7, 112, 4096, 6144, 28_672, 128_256}) {
      HopperProducts.Tiling tiling = HopperProducts.Tiling.of(outputs, 132);
      for (int rows = 16; rows <= HopperProducts.MOST_ROWS; rows += 16) {
        // Two blocks side by side, or one, with what each has besides and the chip keeps.
        int most = (228 << 10) / (tiling.blocks() == 1 ? 2 : 1) - (2 << 10);
        assertThat(tiling.sharedBytes(rows)).isLessThanOrEqualTo(most);
        int behind =
            tiling.sharedBytes(rows) - tiling.stages(rows) * 2 * (tiling.tile() + rows) * 128;
        assertThat(behind).isGreaterThanOrEqualTo((128 - tiling.tile()) * 128);
        assertThat(tiling.stages(rows)).isBetween(2, 12);
        assertThat(tiling.early(rows)).isBetween(1, tiling.most(rows));
        assertThat(tiling.most(rows)).isBetween(2, tiling.stages(rows));
      }
    }
  }

  @Test
  void shouldQueueWeightsInMostOfAHopperGpusSharedMemory() {
    assertThat(FewRowsKernels.sharedBytes()).isBetween(114 << 10, 227 << 10);
  }

  @Test
  void shouldQueueWeightsOfWholeStepsBesideTheirInputs() {
    WholeStepKernels.Network network = network(4096, 14_336);
    for (int rows = 1; rows <= WholeStepKernels.MOST_ROWS; rows++) {
      WholeStepKernels.Shared shared = shared(network, rows, 227 << 10);
      assertThat(shared.bytes()).isLessThanOrEqualTo(227 << 10);
      assertThat(shared.slots()).isGreaterThanOrEqualTo(3);
      // A row of the hidden state is never in segments, and segments are whole chunks.
      assertThat(shared.stride()).isGreaterThanOrEqualTo(2 * 4096 + 64);
      assertThat((shared.stride() - 64) % 2048).isZero();
    }
    assertThat(shared(network, 1, 227 << 10).stride()).isEqualTo(2 * 14_336 + 64);
    // Each slot of a step of one row is 1.5 % of it.
    assertThat(shared(network, 1, 227 << 10).slots()).isEqualTo(6);
    assertThat(WholeStepKernels.shared(network, 1, 132, 99 << 10)).isNull();
    // Units of a product in segments are held by each block, which has room for few.
    assertThat(WholeStepKernels.shared(network(4096, 65_536), 1, 132, 227 << 10)).isNotNull();
    assertThat(WholeStepKernels.shared(network(4096, 65_536), 1, 16, 227 << 10)).isNull();
  }

  private static WholeStepKernels.Network network(int hidden, int inner) {
    return new WholeStepKernels.Network(
        32, hidden, inner, new WholeStepKernels.Heads(32, 8, 128), 128_256, 1e-5f, true, true);
  }

  private static WholeStepKernels.Shared shared(
      WholeStepKernels.Network network, int rows, int bytes) {
    return Objects.requireNonNull(WholeStepKernels.shared(network, rows, 132, bytes));
  }

  @Test
  void shouldWriteALayerAsTheKernelReadsIt() {
    WholeStepKernels.Matrix[] m = new WholeStepKernels.Matrix[7];
    for (int i = 0; i < m.length; i++) {
      m[i] = new WholeStepKernels.Matrix(100 + i, i + 0.5f, i + 0.25f);
    }
    AttentionKernels.Layer cache =
        new AttentionKernels.Layer(7, 8, 4, 2, 64, new AttentionKernels.Scales(0.125f, 0.0625f));
    WholeStepKernels.Layer layer =
        new WholeStepKernels.Layer(5, m[0], m[1], m[2], m[3], 6, m[4], m[5], m[6], cache);
    try (Arena arena = Arena.ofConfined()) {
      ByteBuffer in =
          WholeStepKernels.table(List.of(layer, layer), arena)
              .asByteBuffer()
              .order(ByteOrder.nativeOrder())
              .position(144);
      for (long address : new long[] {100, 101, 102, 103, 104, 105, 106, 5, 6, 7, 8}) {
        assertThat(in.getLong()).isEqualTo(address);
      }
      for (int i = 0; i < m.length; i++) {
        assertThat(in.getFloat()).isEqualTo(i + 0.5f);
      }
      for (float rest : new float[] {0.25f, 3.25f, 4.25f, 6.25f, 0.125f, 0.0625f, 0}) {
        assertThat(in.getFloat()).isEqualTo(rest);
      }
      assertThat(in.hasRemaining()).isFalse();
    }
  }

  @Test
  void shouldTakeFewRowsOfWholePartsForOwnProducts() {
    Rows x = new Rows(256, 64);
    assertThat(FewRowsKernels.takes(x, 8, 512, 64, Short.BYTES)).isTrue();
    assertThat(FewRowsKernels.takes(x, 9, 512, 64, Short.BYTES)).isFalse();
    assertThat(FewRowsKernels.takes(x, 16, 512, 64, Byte.BYTES)).isTrue();
    assertThat(FewRowsKernels.takes(x, 17, 512, 64, Byte.BYTES)).isFalse();
    assertThat(FewRowsKernels.takes(x, 1, 512, 60, Short.BYTES)).isFalse();
    assertThat(FewRowsKernels.takes(x, 1, 520, 64, Short.BYTES)).isFalse();
    assertThat(FewRowsKernels.takes(new Rows(256, 68), 1, 512, 64, Short.BYTES)).isFalse();
  }

  @Test
  void shouldRoundFewRowsWithMoreThreads() {
    assertThat(Fp8Kernels.threads(256, 4096)).isEqualTo(512);
    assertThat(Fp8Kernels.threads(257, 4096)).isEqualTo(128);
    assertThat(Fp8Kernels.threads(1, 14_336)).isEqualTo(896);
    assertThat(Fp8Kernels.threads(1, 8)).isEqualTo(128);
    // One number whatever the rows, where the order of a sum depends on it.
    assertThat(Fp8Kernels.normThreads(1, 8200)).isEqualTo(1024);
    assertThat(Fp8Kernels.normThreads(1000, 8200)).isEqualTo(1024);
  }

  @Test
  void shouldRefuseHeadsThatThereIsNoKernelFor() {
    assertThatThrownBy(() -> new AttentionKernels.Layer(0, 0, 4, 4, 80, null))
        .hasMessageContaining("heads of 80 numbers");
    assertThatThrownBy(() -> new AttentionKernels.Layer(0, 0, 6, 4, 64, null))
        .hasMessageContaining("6 query heads cannot share 4 KV heads");
  }

  @Test
  void shouldLookForTheLibraryWhereTheSettingSays() {
    assertThat(CublasLt.places(Path.of("/x")))
        .containsExactly("/x/libcublasLt.so.13", "/x/libcublasLt.so.12", "/x/libcublasLt.so");
    assertThat(CublasLt.places(null)).startsWith("libcublasLt.so.13", "libcublasLt.so.12");
    assertThatThrownBy(() -> CublasLt.open(Path.of("/nowhere"), 0, false))
        .isInstanceOf(CudaException.class)
        .hasMessageContaining("/nowhere/libcublasLt.so.13, /nowhere/libcublasLt.so.12");
  }

  @Test
  void shouldTellTheLibraryHowAddressesAreAligned() {
    assertThat(CublasLt.alignment(0x100000)).isEqualTo(256);
    assertThat(CublasLt.alignment(0x100010 | 0x2000)).isEqualTo(16);
    assertThat(CublasLt.alignment(0x100002)).isEqualTo(2);
  }

  @Test
  void shouldWriteADrawAsTheKernelReadsIt() {
    assertThat(SamplingKernels.DRAW_BYTES).isEqualTo(72);
    assertThat(SamplingKernels.LOGPROBS_BYTES).isEqualTo(8 + 8 * SamplingKernels.MOST_LOGPROBS);
    MemorySegment to = MemorySegment.ofArray(new byte[2 * 72]);
    new SamplingKernels.Draw(7, 0.5, -2, 0.9, 3, 4, 1.5f, 2.5f, 3.5f, 5, 6, 8, 9, 10).write(to, 72);
    ByteBuffer in = to.asByteBuffer().order(ByteOrder.nativeOrder()).position(72);
    assertThat(in.getLong()).isEqualTo(7);
    assertThat(new double[] {in.getDouble(), in.getDouble(), in.getDouble()})
        .containsExactly(0.5, -2, 0.9);
    assertThat(new int[] {in.getInt(), in.getInt()}).containsExactly(3, 4);
    assertThat(new float[] {in.getFloat(), in.getFloat(), in.getFloat()})
        .containsExactly(1.5f, 2.5f, 3.5f);
    assertThat(new int[] {in.getInt(), in.getInt(), in.getInt(), in.getInt(), in.getInt()})
        .containsExactly(5, 6, 8, 9, 10);
    assertThat(in.hasRemaining()).isFalse();
  }

  @Test
  void shouldSayThatThereIsNoGpu() {
    assumeTrue(Device.count() == 0, "this machine has a GPU");
    assertThatThrownBy(() -> Device.open(0))
        .isInstanceOf(CudaException.class)
        .hasMessageContaining("CPU backend");
  }
}
