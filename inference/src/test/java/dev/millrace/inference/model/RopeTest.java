package dev.millrace.inference.model;

import static org.assertj.core.api.Assertions.assertThat;

import dev.millrace.inference.backend.Rotary;
import dev.millrace.inference.checkpoint.RopeConfig;
import java.math.BigDecimal;
import java.math.MathContext;
import java.util.stream.IntStream;
import org.assertj.core.data.Offset;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** The models of the family, as their configurations have them. */
class RopeTest {
  private static final int HEAD = 128;

  /** Cosine of pair i at a position gives the angle back, as long as the angle is small. */
  private static double frequency(Rotary rotary, int pair) {
    float[] cos = new float[rotary.pairs()];
    float[] sin = new float[rotary.pairs()];
    rotary.at(1, cos, sin, 0);
    return Math.atan2(sin[pair], cos[pair]);
  }

  private static double plain(double theta, int pair) {
    return Math.pow(theta, -2.0 * pair / HEAD);
  }

  @ParameterizedTest
  @CsvSource({"500000, 8, 29, 6, 29", "3565775107.2609234, 4, 17, 4, 43"})
  void shouldKeepBlendAndSlowThePairsOfLlama3(
      double theta, double factor, int kept, int blended, int slowed) {
    Rotary rotary = Rope.of(new RopeConfig.Llama3(theta, factor, 1, 4, 8192), HEAD);
    double[] ratio =
        IntStream.range(0, HEAD / 2)
            .mapToDouble(i -> frequency(rotary, i) / plain(theta, i))
            .toArray();
    assertThat(IntStream.range(0, kept)).allMatch(i -> Math.abs(ratio[i] - 1) < 1e-5);
    assertThat(IntStream.range(kept, kept + blended))
        .allMatch(i -> ratio[i] < 1 - 1e-5 && ratio[i] > 1 / factor + 1e-5);
    assertThat(IntStream.range(HEAD / 2 - slowed, HEAD / 2))
        .allMatch(i -> Math.abs(ratio[i] * factor - 1) < 1e-5);
  }

  @ParameterizedTest
  @CsvSource({"128, 1.4852", "256, 1.5545", "512, 1.6238"})
  void shouldSlowTheLongWavesOfUltraLong(double factor, double attentionFactor) {
    Rotary rotary =
        Rope.of(
            new RopeConfig.Yarn(500_000, factor, 8192, 4, 1, 0.1 * Math.log(factor) + 1, true),
            HEAD);
    for (int i = 0; i < HEAD / 2; i++) {
      // Pairs up to 28 are kept, from 35 on slowed, those between in proportion.
      double slowed = Math.clamp((i - 28) / 7.0, 0, 1);
      assertThat(frequency(rotary, i) / plain(500_000, i))
          .as("pair %d", i)
          .isCloseTo(slowed / factor + 1 - slowed, Offset.offset(1e-5));
    }
    float[] cos = new float[HEAD / 2];
    rotary.at(0, cos, new float[HEAD / 2], 0);
    assertThat((double) cos[0]).isCloseTo(attentionFactor, Offset.offset(1e-4));
  }

  @Test
  void shouldKeepItsPrecisionAtMillionsOfPositions() {
    Rotary rotary = Rope.of(new RopeConfig.Plain(500_000), HEAD);
    int position = 4_000_003;
    float[] cos = new float[HEAD / 2];
    rotary.at(position, cos, new float[HEAD / 2], 0);
    BigDecimal turn = new BigDecimal("6.283185307179586476925286766559005768");
    for (int i = 0; i < HEAD / 2; i++) {
      // The frequency as the double it is; the product and the whole turns exactly.
      BigDecimal angle =
          new BigDecimal(Math.pow(500_000, -2.0 * i / HEAD)).multiply(BigDecimal.valueOf(position));
      double rest = angle.remainder(turn, MathContext.DECIMAL128).doubleValue();
      assertThat((double) cos[i]).as("pair %d", i).isCloseTo(Math.cos(rest), Offset.offset(1e-7));
    }
  }
}
