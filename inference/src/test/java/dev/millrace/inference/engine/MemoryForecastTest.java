package dev.millrace.inference.engine;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import org.junit.jupiter.api.Test;

class MemoryForecastTest {
  private record Member(long tokens, int growth) {
    /** Tokens' memory that it holds after so many steps. */
    long held(int step, int blockSize) {
      return step > growth ? 0 : Math.ceilDiv(tokens + step, blockSize) * (long) blockSize;
    }
  }

  /** Most that all hold while the last of them is there. */
  private static long peak(List<Member> members, int blockSize) {
    long peak = 0;
    for (int step = 0; step <= members.getLast().growth; step++) {
      long sum = 0;
      for (Member member : members) {
        sum += member.held(step, blockSize);
      }
      peak = Math.max(peak, sum);
    }
    return peak;
  }

  private static MemoryForecast of(List<Member> members, int blockSize, int horizon) {
    MemoryForecast forecast = new MemoryForecast(blockSize);
    forecast.begin(horizon);
    members.forEach(m -> forecast.count(m.tokens, m.growth));
    forecast.settle();
    return forecast;
  }

  /** Least memory that a forecast finds enough. */
  private static long least(MemoryForecast forecast, Member last, long from) {
    long low = 0;
    long high = from;
    while (low < high) {
      long middle = (low + high) >>> 1;
      if (forecast.fits(last.tokens, last.growth, middle)) {
        high = middle;
      } else {
        low = middle + 1;
      }
    }
    return low;
  }

  @Test
  void shouldCountOneThatEndsBeforeAnotherHasGrown() {
    List<Member> members = List.of(new Member(10, 5));
    MemoryForecast forecast = of(members, 1, 100);
    // 15 tokens and 7 are there at the end of the first, then 102 are alone.
    assertThat(least(forecast, new Member(2, 100), 1000)).isEqualTo(102);
    assertThat(least(forecast, new Member(2, 20), 1000)).isEqualTo(22);
    assertThat(least(forecast, new Member(2, 3), 1000)).isEqualTo(13 + 5);
    assertThat(least(forecast, new Member(2, 5), 1000)).isEqualTo(15 + 7);
  }

  @Test
  void shouldNeverExpectLessThanThereIsAndHardlyMore() {
    for (int seed = 0; seed < 500; seed++) {
      Random random = new Random(seed);
      int blockSize = 1 + random.nextInt(20);
      int longest = 1 + random.nextInt(random.nextBoolean() ? 200 : 5000);
      List<Member> members = new ArrayList<>();
      for (int i = random.nextInt(30); i >= 0; i--) {
        members.add(new Member(random.nextInt(300), random.nextInt(longest)));
      }
      MemoryForecast forecast = of(members.subList(0, members.size() / 2), blockSize, longest);
      assertThat(forecast.horizon()).isGreaterThanOrEqualTo(longest);
      members
          .subList(members.size() / 2, members.size() - 1)
          .forEach(m -> forecast.add(m.tokens, m.growth));
      Member last = members.getLast();
      long peak = peak(members, blockSize);
      int span = Math.ceilDiv(longest, 128);
      assertThat(least(forecast, last, 1_000_000))
          .as("seed %d, blocks of %d, up to %d", seed, blockSize, longest)
          .isBetween(
              peak, peak + (long) members.size() * (blockSize + 2 * span) + ended(members, span));
    }
  }

  /** What those hold at most that end within one span of each other, and are all counted in it. */
  private static long ended(List<Member> members, int span) {
    long most = 0;
    for (Member one : members) {
      long sum = 0;
      for (Member other : members) {
        boolean near = Math.abs(one.growth - other.growth) <= 2 * span;
        sum += near ? other.tokens + other.growth : 0;
      }
      most = Math.max(most, sum);
    }
    return span == 1 ? 0 : most;
  }

  @Test
  void shouldBeExactWhereSpansAreSteps() {
    for (int seed = 0; seed < 200; seed++) {
      Random random = new Random(seed);
      List<Member> members = new ArrayList<>();
      for (int i = random.nextInt(20); i >= 0; i--) {
        members.add(new Member(random.nextInt(50), random.nextInt(200)));
      }
      MemoryForecast forecast = of(members.subList(0, members.size() - 1), 1, 200);
      assertThat(least(forecast, members.getLast(), 1_000_000))
          .as("seed %d", seed)
          .isEqualTo(peak(members, 1));
    }
  }
}
