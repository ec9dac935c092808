package dev.millrace.inference.backend.cuda;

import static org.assertj.core.api.Assertions.assertThat;

import dev.millrace.inference.api.SamplingParams;
import dev.millrace.inference.engine.Batch;
import dev.millrace.inference.sampling.SamplingState;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.Random;
import org.junit.jupiter.api.Test;

/**
 * Sequences grow, come and go and change places, take part in steps or not; whatever was listed
 * before, a step finds its own numbers, whatever room there is.
 */
class SequenceListTest {
  private static final int BLOCK = CudaKvCache.BLOCK;
  private static final int MOST_BLOCKS = 40;

  private final Random random = new Random(5);
  private final SequenceList list = new SequenceList();
  private int moves;

  private final class Member {
    final SamplingState state =
        new SamplingState(
            new SamplingParams(0, 1, 0, 0, 1, 0, 0, 0, 1, 0, List.of(), true, -1),
            new int[1],
            new int[0],
            new int[0]);
    final int[] blocks = random.ints(MOST_BLOCKS, 0, 1_000_000).toArray();
    int length = 1 + random.nextInt(MOST_BLOCKS * BLOCK / 2);
  }

  @Test
  void shouldListEachStepWhateverWasListedBefore() {
    List<Member> all = new ArrayList<>();
    for (int step = 0; step < 3000; step++) {
      int change = random.nextInt(20);
      if (all.isEmpty() || change == 0 && all.size() < 30) {
        all.add(new Member());
      } else if (change == 1) {
        all.remove(random.nextInt(all.size()));
      } else if (change == 2) {
        Collections.shuffle(all, random);
      }
      all.removeIf(m -> m.length + 8 >= MOST_BLOCKS * BLOCK);
      all.forEach(m -> m.length += random.nextInt(8));
      check(random.nextInt(10) == 0 ? all.subList(0, all.size() / 2) : all);
    }
    // Else every step would be listed anew.
    assertThat(moves).isBetween(10, 1500);
  }

  private void check(List<Member> members) {
    Batch batch = batch(members);
    long least = SequenceList.least(batch);
    int[] before = list.numbers().clone();
    int most = (int) least + random.nextInt(10 * members.size() + 1);
    list.list(batch, most);
    assertThat(list.length()).isBetween((int) least, most);
    int end = 0;
    int same = 0;
    for (int s = 0; s < members.size(); s++) {
      Member member = members.get(s);
      int begin = list.begin(s);
      int count = Math.ceilDiv(member.length, BLOCK);
      int[] numbers = Arrays.copyOfRange(list.numbers(), begin, begin + SequenceList.OWN + count);
      assertThat(begin).isGreaterThanOrEqualTo(end);
      assertThat(numbers).startsWith(s, s + 1, member.length);
      assertThat(Arrays.copyOfRange(numbers, SequenceList.OWN, numbers.length))
          .isEqualTo(Arrays.copyOf(member.blocks, count));
      end = begin + numbers.length;
      same += begin < before.length && before[begin] == s ? 1 : 0;
    }
    assertThat(list.length()).isGreaterThanOrEqualTo(end);
    moves += same < members.size() ? 1 : 0;
  }

  private static Batch batch(List<Member> members) {
    Batch batch = new Batch(30, 30, MOST_BLOCKS);
    batch.sequences = members.size();
    for (int s = 0; s < members.size(); s++) {
      Member member = members.get(s);
      batch.contextLength[s] = member.length;
      batch.sampling[s] = member.state;
      int count = Math.ceilDiv(member.length, BLOCK);
      System.arraycopy(member.blocks, 0, batch.blockTable, s * MOST_BLOCKS, count);
    }
    return batch;
  }
}
