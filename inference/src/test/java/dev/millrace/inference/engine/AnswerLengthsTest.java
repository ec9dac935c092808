package dev.millrace.inference.engine;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import java.util.Arrays;
import java.util.Random;
import java.util.function.IntUnaryOperator;
import org.junit.jupiter.api.Test;

class AnswerLengthsTest {
  private static final int COUNT = 1500;

  @Test
  void shouldExpectLongAnswersBeforeItHasSeenAny() {
    AnswerLengths lengths = new AnswerLengths();
    assertThat(lengths.quantile(0, 0.5)).isGreaterThan(300);
    assertThat(lengths.quantile(100, 0.5)).isGreaterThan(3000);
    assertThat(lengths.quantile(4000, 0.5)).isGreaterThan(100_000);
    assertThat(lengths.quantile(0, 0.999_999_999)).isGreaterThan(1_000_000);
  }

  @Test
  void shouldFindTheSpreadOfWhatItHasSeen() {
    int[] all = logNormal(1);
    AnswerLengths lengths = new AnswerLengths();
    Arrays.stream(all).forEach(length -> lengths.ended(length, true));
    lengths.learn();
    assertQuantiles(lengths, all, 0, 1);
    // One of 300 tokens is expected to come to what those came to that got so far.
    int[] longer = Arrays.stream(all).filter(length -> length > 300).toArray();
    assertQuantiles(lengths, longer, 300, 1);
  }

  @Test
  void shouldNotTakeALimitForAnEnd() {
    int[] all = logNormal(2);
    AnswerLengths lengths = new AnswerLengths();
    for (int length : all) {
      // Half may come to 150 tokens only.
      int limit = length % 2 == 0 ? 150 : 5000;
      lengths.ended(Math.min(length, limit), length < limit);
    }
    lengths.learn();
    assertQuantiles(lengths, all, 0, 1.1);
  }

  @Test
  void shouldNotBeMisledByShortAnswersThatAreTheFirstToEnd() {
    int[] all = logNormal(3);
    AnswerLengths lengths = new AnswerLengths();
    for (int length : all) {
      if (length <= 150) {
        lengths.ended(length, true);
      } else {
        lengths.running(150);
      }
    }
    lengths.learn();
    int[] sorted = Arrays.stream(all).sorted().toArray();
    assertThat((double) lengths.quantile(0, 0.2)).isCloseTo(sorted[COUNT / 5], within(20.0));
    assertThat(lengths.quantile(0, 0.6)).isGreaterThan(150);

    lengths.forgetRunning();
    lengths.learn();
    assertThat(lengths.quantile(0, 0.6)).as("without those under way").isLessThan(150);
  }

  @Test
  void shouldForgetWhatWasLongAgo() {
    AnswerLengths lengths = new AnswerLengths();
    for (int i = 0; i < 20_000; i++) {
      lengths.ended(50, true);
    }
    for (int i = 0; i < 6000; i++) {
      lengths.ended(2000, true);
    }
    lengths.learn();
    assertThat(lengths.quantile(0, 0.3)).isBetween(1700, 2100);
  }

  @Test
  void shouldStayALengthAtTheEndOfAll() {
    AnswerLengths lengths = new AnswerLengths();
    assertThat(lengths.quantile(Integer.MAX_VALUE, 0.5)).isEqualTo(Integer.MAX_VALUE);
    assertThat(lengths.quantile(Integer.MAX_VALUE - 1, 0.5)).isEqualTo(Integer.MAX_VALUE);
  }

  @Test
  void shouldAlwaysExpectMore() {
    Random random = new Random(4);
    AnswerLengths lengths = new AnswerLengths();
    for (int i = 0; i < 20_000; i++) {
      int length = random.nextInt(1 << random.nextInt(31));
      if (i % 2 == 0) {
        lengths.ended(length, random.nextBoolean());
      } else {
        lengths.running(length);
      }
      if (i % 100 == 0) {
        lengths.learn();
      }
      int from = random.nextInt(1 << random.nextInt(31));
      int end = lengths.quantile(from, random.nextDouble());
      assertThat(end).as("step %d, from %d", i, from).isGreaterThan(from);
      assertThat(lengths.quantile(from, 0.9)).isGreaterThanOrEqualTo(lengths.quantile(from, 0.3));
    }
  }

  private static int[] logNormal(int seed) {
    Random random = new Random(seed);
    IntUnaryOperator one = i -> (int) Math.clamp(200 * Math.exp(random.nextGaussian()), 1, 4000);
    int[] all = new int[COUNT];
    Arrays.setAll(all, one);
    return all;
  }

  private static void assertQuantiles(AnswerLengths lengths, int[] all, int from, double spread) {
    int[] sorted = Arrays.stream(all).sorted().toArray();
    for (double share : new double[] {0.1, 0.25, 0.5, 0.75, 0.9}) {
      double expected = sorted[(int) (share * sorted.length)];
      assertThat((double) lengths.quantile(from, share))
          .as("quantile %s", share)
          .isBetween(expected / (1.1 * spread), expected * 1.1 * spread);
    }
  }
}
