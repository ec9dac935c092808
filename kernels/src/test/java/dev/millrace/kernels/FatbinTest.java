package dev.millrace.kernels;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class FatbinTest {
  private static final int MAGIC = 0xBA55ED50;
  private static final int PTX = 1;
  private static final int ELF = 2;

  /** Set for code of one chip's own features: the a of sm_90a. */
  private static final int CHIP_SPECIFIC = 1 << 20;

  @ParameterizedTest
  @ValueSource(
      strings = {
        "norm",
        "activation",
        "begin",
        "rope",
        "attention",
        "attention_fp8",
        "attention_sm90",
        "attention_e4m3_sm90",
        "decode_sm90",
        "sampling",
        "convert",
        "fill"
      })
  void shouldHoldCodeForEachChipAndPtxForLaterOnes(String name) {
    assumeTrue(
        FatbinTest.class.getResource(name + ".fatbin") != null,
        "this build has no kernels: nvcc was not found");
    assertThat(contents(KernelModule.fatbin(name)))
        .containsExactlyInAnyOrder("sm_80", "sm_90a", "compute_80 PTX");
  }

  @Test
  void shouldSayHowToGetKernelsThatAreMissing() {
    assertThatThrownBy(() -> KernelModule.fatbin("none"))
        .isInstanceOf(CudaException.class)
        .hasMessageContaining("the kernels of none.cu are not in this build")
        .hasMessageContaining("nvcc")
        .hasMessageContaining("CUDA_HOME");
  }

  /**
   * What a fat binary holds. Its layout has no public description; this one was read off nvcc's
   * output: a header of magic, version, own size and total size, then entries of kind, version, own
   * size, payload size, and at byte 28 the chip, at byte 40 flags.
   */
  private static List<String> contents(byte[] fatbin) {
    ByteBuffer in = ByteBuffer.wrap(fatbin).order(ByteOrder.LITTLE_ENDIAN);
    assertThat(in.getInt(0)).isEqualTo(MAGIC);
    int at = in.getShort(6);
    long end = at + in.getLong(8);
    assertThat(end).isEqualTo(fatbin.length);
    List<String> contents = new ArrayList<>();
    while (at < end) {
      int kind = in.getShort(at);
      int chip = in.getInt(at + 28);
      boolean specific = (in.getInt(at + 40) & CHIP_SPECIFIC) != 0;
      assertThat(kind).isIn(PTX, ELF);
      contents.add(kind == PTX ? "compute_" + chip + " PTX" : "sm_" + chip + (specific ? "a" : ""));
      at += in.getInt(at + 4) + Math.toIntExact(in.getLong(at + 8));
    }
    return contents;
  }
}
