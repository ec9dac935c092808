package dev.millrace.inference.checkpoint;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class E4m3Test {
  private static final long SEED = 20_261_121;

  @Test
  void shouldKeepEveryNumberItHas() {
    for (int code = 0; code < 256; code++) {
      float value = E4m3.decode((byte) code);
      if ((code & 0x7f) == 0x7f) {
        assertThat(value).isNaN();
      } else {
        assertThat(E4m3.encode(value)).as("pattern %d", code).isEqualTo((byte) code);
      }
    }
  }

  @ParameterizedTest
  @CsvSource({
    "1,1", "0.9375,0.9375", "17,16", "19,20", "0.0009765625,0", "0.0029296875,0.00390625",
    "0.0146484375,0.015625", "448,448", "463,448", "1e9,448", "Infinity,448", "-Infinity,-448"
  })
  void shouldTakeTheNearestNumberTiesToEven(float value, float expected) {
    assertThat(E4m3.round(value)).isEqualTo(expected);
  }

  @Test
  void shouldFindNoNearerNumber() {
    Random random = new Random(SEED);
    for (int i = 0; i < 20_000; i++) {
      float value = (float) (random.nextGaussian() * Math.pow(2, random.nextInt(20) - 11));
      float rounded = E4m3.round(value);
      for (int code = 0; code < 256; code++) {
        float other = E4m3.decode((byte) code);
        if (!Float.isNaN(other)) {
          assertThat(Math.abs(value - rounded))
              .as("%s is %s, seed %d", value, rounded, SEED)
              .isLessThanOrEqualTo(Math.abs(value - other));
        }
      }
    }
  }

  @Test
  void shouldKeepWhatIsNoNumber() {
    assertThat(E4m3.round(Float.NaN)).isNaN();
  }

  @Test
  void shouldScaleTheLargestNumberToTheLargest() {
    assertThat(E4m3.scale(896)).isEqualTo(2);
    assertThat(E4m3.scale(0)).isEqualTo(1);
    assertThat(E4m3.scale(Float.MIN_VALUE)).isPositive();
  }
}
