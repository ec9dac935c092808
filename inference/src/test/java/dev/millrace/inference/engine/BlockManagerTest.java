package dev.millrace.inference.engine;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.millrace.inference.api.SamplingParams;
import dev.millrace.inference.api.Scheduling;
import java.util.Arrays;
import java.util.Random;
import org.junit.jupiter.api.Test;

class BlockManagerTest {
  private static final Engine ENGINE =
      new Engine(
          new ConstantRunner(new Runner.Info(1000, 1000, 16, 10, 1)),
          EngineConfig.defaults(),
          false);

  @Test
  void shouldReserveWhatTheKnownTokensNeedAndThenABlockAtATime() {
    BlockManager blocks = new BlockManager(10, 4, true);
    Sequence one = admitted(blocks, sequence(30, 1, 2, 3, 4, 5));
    assertThat(blocks.reserved()).isEqualTo(2);
    assertThat(blocks.free()).isEqualTo(10);
    assertThat(blocks.available()).isEqualTo(8);
    blocks.grow(one, 8);
    assertThat(one.reserved).isZero();
    assertThatThrownBy(() -> blocks.grow(one, 9)).hasMessageContaining("than it reserved");
    assertThat(blocks.extend(one, 8)).as("has room").isTrue();
    assertThat(blocks.reserved()).isZero();
    assertThat(blocks.extend(one, 9)).isTrue();
    assertThat(blocks.reserved()).isEqualTo(1);
    assertThat(blocks.available()).isEqualTo(7);
    blocks.grow(one, 9);
    assertThat(one.owned).isEqualTo(3);

    Sequence all = sequence(9, new int[28]);
    assertThat(blocks.probe(all)).isEqualTo(7);
    blocks.admit(all);
    assertThat(blocks.covers(one, 12)).isTrue();
    assertThat(blocks.covers(one, 13)).isFalse();
    assertThat(blocks.extend(one, 13)).as("all are reserved").isFalse();
    assertThat(blocks.probe(sequence(1, 9))).isEqualTo(1);
    assertThatThrownBy(() -> blocks.admit(sequence(1, 9))).hasMessageContaining("does not fit");
    blocks.release(all);
    assertThat(blocks.extend(one, 13)).isTrue();
  }

  @Test
  void shouldCountABlockThatSeveralHoldOnce() {
    BlockManager blocks = new BlockManager(10, 2, true);
    Sequence one = admitted(blocks, sequence(9, 1, 1, 5, 5, 0));
    blocks.grow(one, 5);
    blocks.computed(one, 5);
    Sequence two = sequence(9, 1, 1, 5, 5, 7, 7);
    assertThat(blocks.probe(two)).as("beside the two that one holds").isEqualTo(1);
    blocks.admit(two);
    assertThat(one.owned).isEqualTo(3);
    assertThat(two.owned).isEqualTo(1);
    assertThat(blocks.available()).isEqualTo(6);
    blocks.release(one);
    assertThat(blocks.available()).isEqualTo(7);
    blocks.release(two);
    Sequence three = sequence(9, 1, 1, 5, 5, 7, 7);
    assertThat(blocks.probe(three)).as("cached, and nobody's").isEqualTo(3);
    blocks.admit(three);
    assertThat(three.blockCount).isEqualTo(2);
    assertThat(three.owned).isEqualTo(3);
  }

  @Test
  void shouldShareFullComputedBlocksOnly() {
    BlockManager blocks = new BlockManager(40, 4, true);
    Sequence one = admitted(blocks, sequence(5, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10));
    blocks.grow(one, 10);
    assertThat(admit(blocks, sequence(5, 1, 2, 3, 4, 5))).as("not computed yet").isZero();
    blocks.computed(one, 7);
    Sequence two = sequence(5, 1, 2, 3, 4, 5, 6, 7, 8, 9);
    assertThat(admit(blocks, two)).isEqualTo(4);
    assertThat(two.blocks[0]).isEqualTo(one.blocks[0]);
    assertThat(blocks.references(one.blocks[0])).isEqualTo(2);
    assertThat(blocks.references(one.blocks[1])).isEqualTo(1);
    blocks.computed(one, 10);
    assertThat(admit(blocks, sequence(1, 1, 2, 3, 4, 5, 6, 7, 8))).as("one is left").isEqualTo(4);
    assertThat(admit(blocks, sequence(1, 1, 2, 3, 4, 5, 6, 7, 8, 0))).isEqualTo(8);
    assertThat(admit(blocks, sequence(1, 1, 2, 3, 4, 5, 6, 7, 0, 0))).isEqualTo(4);
    assertThat(admit(blocks, sequence(1, 0, 2, 3, 4, 5, 6, 7, 8, 0))).isZero();
  }

  @Test
  void shouldNotTakeABlockWithTheSameTokensBehindAnotherBeginning() {
    BlockManager blocks = new BlockManager(10, 2, true);
    Sequence one = admitted(blocks, sequence(1, 1, 1, 5, 5, 0));
    blocks.grow(one, 5);
    blocks.computed(one, 5);
    assertThat(admit(blocks, sequence(1, 2, 2, 5, 5, 0))).isZero();
    assertThat(admit(blocks, sequence(1, 5, 5, 0))).isZero();
    assertThat(admit(blocks, sequence(1, 1, 1, 5, 5, 0))).isEqualTo(4);
  }

  @Test
  void shouldNotTakeABlockWhoseBeginningGaveItsMemoryToOtherContent() {
    BlockManager blocks = new BlockManager(4, 2, true);
    Sequence one = admitted(blocks, sequence(1, 1, 1, 5, 5, 9));
    blocks.grow(one, 4);
    blocks.computed(one, 4);
    int beginning = one.blocks[0];
    int end = one.blocks[1];
    // The end stays cached, held by somebody; its beginning comes to hold something else.
    one.blocks = new int[] {beginning};
    one.blockCount = 1;
    blocks.release(one);
    Sequence other = admitted(blocks, sequence(1, 7, 7, 7, 7, 7, 7));
    blocks.grow(other, 6);
    blocks.computed(other, 6);
    assertThat(other.blocks).contains(beginning);
    assertThat(blocks.shareableTokens(beginning)).containsExactly(7, 7);
    assertThat(blocks.shareableTokens(end)).containsExactly(5, 5);
    blocks.release(other);
    Sequence mixed = admitted(blocks, sequence(1, 7, 7, 5, 5, 9));
    assertThat(mixed.blockCount).as("only 7 7 is there").isEqualTo(1);
    blocks.release(mixed);
    assertThat(cached(blocks, 1)).isZero();
  }

  @Test
  void shouldGiveAwayTheLongestUnusedFirst() {
    BlockManager blocks = new BlockManager(6, 2, true);
    for (int token : new int[] {1, 2, 3}) {
      Sequence sequence = admitted(blocks, sequence(1, token, token, token));
      blocks.grow(sequence, 3);
      blocks.computed(sequence, 3);
      blocks.release(sequence);
    }
    // 1, 2 and 3 are cached, three blocks are plain. A hit makes 2 the oldest.
    assertThat(cached(blocks, 1)).isEqualTo(2);
    Sequence large = admitted(blocks, sequence(1, 8, 8, 8, 8, 8, 8, 8));
    blocks.grow(large, 7);
    blocks.release(large);
    assertThat(cached(blocks, 3)).isEqualTo(2);
    assertThat(cached(blocks, 2)).isZero();
    assertThat(cached(blocks, 1)).isEqualTo(2);
  }

  @Test
  void shouldForgetWhatIsInDoubt() {
    BlockManager blocks = new BlockManager(10, 2, true);
    Sequence one = admitted(blocks, sequence(1, 1, 1, 5, 5, 0));
    blocks.grow(one, 5);
    blocks.computed(one, 5);
    blocks.forget(one);
    blocks.release(one);
    assertThat(admit(blocks, sequence(1, 1, 1, 5, 5, 0))).isZero();
  }

  @Test
  void shouldFindExactlyWhatIsCachedHoweverFullItsTableIs() {
    for (int seed = 0; seed < 200; seed++) {
      Random random = new Random(seed);
      int blockSize = 1 + random.nextInt(3);
      BlockManager blocks = new BlockManager(8 + random.nextInt(30), blockSize, true);
      for (int i = 0; i < 200; i++) {
        int[] prompt = random.ints(1 + random.nextInt(12), 0, 2).toArray();
        Sequence sequence = sequence(1, prompt);
        int found = admit(blocks, sequence);
        if (found < 0) {
          continue;
        }
        assertThat(found).isBetween(0, prompt.length - 1);
        for (int b = 0; b < found / blockSize; b++) {
          assertThat(blocks.shareableTokens(sequence.blocks[b]))
              .as("seed %d, block %d", seed, b)
              .isEqualTo(Arrays.copyOfRange(prompt, b * blockSize, (b + 1) * blockSize));
        }
        blocks.grow(sequence, prompt.length);
        blocks.computed(sequence, prompt.length);
        blocks.release(sequence);
        assertThat(blocks.freeBlocks()).doesNotHaveDuplicates().hasSize(blocks.free());
      }
    }
  }

  private static int cached(BlockManager blocks, int token) {
    Sequence sequence = sequence(1, token, token, token);
    int found = admit(blocks, sequence);
    blocks.release(sequence);
    return found;
  }

  private static Sequence admitted(BlockManager blocks, Sequence sequence) {
    assertThat(admit(blocks, sequence)).isGreaterThanOrEqualTo(0);
    return sequence;
  }

  /** Tokens found in the cache; -1: there is no room. */
  private static int admit(BlockManager blocks, Sequence sequence) {
    return blocks.probe(sequence) <= blocks.available() ? blocks.admit(sequence) : -1;
  }

  private static Sequence sequence(int maxTokens, int... prompt) {
    TokenRequest request =
        new TokenRequest(
            "r", prompt, new int[0], SamplingParams.greedy(maxTokens), new int[0], Scheduling.ANY);
    return new Sequence(ENGINE, request, new Recorder(), 1000, null);
  }
}
