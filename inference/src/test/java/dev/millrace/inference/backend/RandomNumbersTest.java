package dev.millrace.inference.backend;

import static org.assertj.core.api.Assertions.assertThat;

import dev.millrace.inference.checkpoint.WeightFormat;
import org.assertj.core.data.Offset;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

class RandomNumbersTest {
  private static final int ROWS = 700;
  private static final int COLUMNS = 300;
  private static final float SPREAD = 0.5f;

  @ParameterizedTest
  @EnumSource(
      value = WeightFormat.class,
      names = {"BF16", "F16", "F32"})
  void shouldSpreadEvenly(WeightFormat format) {
    float[] numbers = RandomNumbers.matrix(ROWS, COLUMNS, format, SPREAD, 3).decode();
    double sum = 0;
    double squares = 0;
    for (float number : numbers) {
      assertThat(Math.abs(number)).isLessThanOrEqualTo(SPREAD);
      sum += number;
      squares += number * number;
    }
    assertThat(sum / numbers.length).isCloseTo(0, Offset.offset(0.002));
    assertThat(squares / numbers.length).isCloseTo(SPREAD * SPREAD / 3, Offset.offset(0.001));
  }

  @ParameterizedTest
  @EnumSource(
      value = WeightFormat.class,
      names = {"BF16", "F16", "F32"})
  void shouldDependOnSeedAndIndexAlone(WeightFormat format) {
    float[] numbers = RandomNumbers.matrix(ROWS, COLUMNS, format, SPREAD, 3).decode();
    // The other shape is cut into other parts.
    float[] longer = RandomNumbers.matrix(ROWS * 2, COLUMNS, format, SPREAD, 3).decode();
    assertThat(java.util.Arrays.copyOf(longer, numbers.length)).isEqualTo(numbers);
    assertThat(RandomNumbers.matrix(ROWS, COLUMNS, format, SPREAD, 4).decode())
        .isNotEqualTo(numbers);
  }
}
