package dev.millrace.inference.model;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.millrace.inference.checkpoint.E4m3;
import dev.millrace.inference.checkpoint.InvalidCheckpointException;
import dev.millrace.inference.checkpoint.Quantization;
import dev.millrace.inference.checkpoint.WeightData;
import dev.millrace.inference.checkpoint.WeightFormat;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.List;
import org.junit.jupiter.api.Test;

class Fp8Test {
  private final Arena arena = Arena.ofAuto();

  private WeightData floats(float... numbers) {
    MemorySegment data = arena.allocateFrom(ValueLayout.JAVA_FLOAT, numbers);
    return new WeightData("w", WeightFormat.F32, new int[] {1, numbers.length}, data);
  }

  private WeightData fp8(float scale, float inputScale, int... codes) {
    MemorySegment data = arena.allocate(codes.length);
    for (int i = 0; i < codes.length; i++) {
      data.set(ValueLayout.JAVA_BYTE, i, (byte) codes[i]);
    }
    return new WeightData(
        "w",
        WeightFormat.F8_E4M3,
        new int[] {1, codes.length},
        data,
        new Quantization(scale, inputScale));
  }

  @Test
  void shouldGiveAGroupTheLargestScaleOfItsInputs() {
    List<WeightData> group =
        Fp8.shareInput(List.of(fp8(0.5f, 0.1f, 1), fp8(0.25f, 0.3f, 2), fp8(1, 0.2f, 3)));
    assertThat(group)
        .extracting(WeightData::quantization)
        .containsExactly(
            new Quantization(0.5f, 0.3f), new Quantization(0.25f, 0.3f), new Quantization(1, 0.3f));
  }

  @Test
  void shouldRefuseAGroupWhoseSharedScaleIsTooLargeForOneOfIt() {
    assertThatThrownBy(() -> Fp8.shareInput(List.of(fp8(1e25f, 1, 1), fp8(1e-25f, 1e25f, 2))))
        .isInstanceOf(InvalidCheckpointException.class)
        .hasMessageContaining("matrix w is 1.0E25 and that of its input 1.0E25");
  }

  @Test
  void shouldLeaveAGroupThatIsNotFp8() {
    WeightData floats = floats(1, 2);
    assertThat(Fp8.shareInput(List.of(floats))).containsExactly(floats);
  }

  @Test
  void shouldMakeAGroupWithTheScaleOfItsLargestNumber() {
    List<WeightData> group = Fp8.quantise(List.of(floats(1, -2, 0), floats(8.96f, 0.3f)), arena);
    assertThat(group)
        .extracting(WeightData::quantization)
        .containsOnly(new Quantization(E4m3.scale(8.96f), Quantization.PER_ROW));
    float scale = E4m3.scale(8.96f);
    assertThat(group.getFirst().decode())
        .containsExactly(E4m3.round(1 / scale) * scale, -E4m3.round(2 / scale) * scale, 0);
    assertThat(group.getLast().decode()[0]).isEqualTo(448 * scale);
  }

  @Test
  void shouldNotTakeAScaleFromWhatIsNoNumber() {
    WeightData made = Fp8.quantise(List.of(floats(Float.NaN, 4.48f)), arena).getFirst();
    assertThat(made.scale()).isEqualTo(E4m3.scale(4.48f));
    assertThat(made.decode()[0]).isNaN();
  }

  @Test
  void shouldWidenWithTheScale() {
    // 1, -448 and the least number.
    WeightData wide = Fp8.widen(fp8(0.5f, 1, 0x38, 0xfe, 0x01), arena);
    assertThat(wide.format()).isEqualTo(WeightFormat.BF16);
    assertThat(wide.decode()).containsExactly(0.5f, -224, 0x1p-10f);
  }
}
