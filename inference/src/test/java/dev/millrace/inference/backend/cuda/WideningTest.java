package dev.millrace.inference.backend.cuda;

import static org.assertj.core.api.Assertions.assertThat;

import dev.millrace.inference.engine.Batch;
import java.util.Arrays;
import java.util.List;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Test;

class WideningTest {
  private static final int GROUP = 4;
  private static final int KV_HEADS = 8;
  private static final long BLOCK_BYTES = KV_HEADS * 16 * 128 * 2 * Short.BYTES;

  private final AttentionPlan plan = new AttentionPlan(false);
  private final Widening widening = new Widening();

  @Test
  void shouldPayForManyRowsOfAContextAlone() {
    assertThat(widening.isFor(720, 720, GROUP)).isTrue();
    assertThat(widening.isFor(719, 719, GROUP)).isFalse();
    assertThat(widening.isFor(121, 100_000, GROUP)).isTrue();
    assertThat(widening.isFor(120, 100_000, GROUP)).isFalse();
    assertThat(widening.isFor(1, 1, 128)).isFalse();
  }

  /** Or those tests on the card would not see it any more. */
  @Test
  void shouldPayForWhatBackendTestTakesToBeMany() {
    assertThat(widening.isFor(240, 330, 8)).isTrue();
    assertThat(widening.isFor(180, 320, 8)).isTrue();
    assertThat(widening.isFor(360, 360, 8)).isTrue();
    assertThat(widening.isFor(371, 371, 8)).isTrue();
    assertThat(widening.isFor(202, 371, 8)).isTrue();
  }

  @Test
  void shouldTakeEachTileOnceAndTheBlocksThatItReads() {
    // A whole prompt, too short a chunk, a decode, a chunk of a long context.
    Batch batch = batch(new int[] {800, 100, 1, 300}, new int[] {800, 40_000, 700, 5000});
    plan(batch, BLOCK_BYTES);

    assertThat(distinct(widening.tileSequence)).containsExactly(0, 3);
    assertThat(distinct(plan.tileSequence)).containsExactly(1);
    assertThat(plan.tileToken.count).isEqualTo(plan.tileSequence.count).isEqualTo(4);
    assertThat(widening.tileToken.count).isEqualTo(widening.tileSequence.count).isEqualTo(25 + 10);
    assertThat(ints(widening.first)).containsExactly(0, -1, -1, 50);
    assertThat(ints(widening.blocks))
        .containsExactlyElementsOf(
            IntStream.concat(row(batch, 0, 50), row(batch, 3, 313)).boxed().toList());
  }

  @Test
  void shouldLeaveToTheCacheWhatDoesNotFit() {
    // 256 MB hold 65,536 tokens of eight heads of 128.
    Batch batch = batch(new int[] {1000, 1000, 1000}, new int[] {50_000, 15_536, 1000});
    plan(batch, BLOCK_BYTES);
    assertThat(distinct(widening.tileSequence)).containsExactly(0, 1);
    assertThat(distinct(plan.tileSequence)).containsExactly(2);

    plan(batch, 4 * BLOCK_BYTES);
    assertThat(distinct(widening.tileSequence)).containsExactly(1);
  }

  @Test
  void shouldForgetWhatWasPlannedBefore() {
    plan(batch(new int[] {800}, new int[] {800}), BLOCK_BYTES);
    plan(batch(new int[] {5}, new int[] {600}), BLOCK_BYTES);
    assertThat(widening.blocks.count).isZero();
    assertThat(widening.tileSequence.count).isZero();
    assertThat(plan.tileSequence.count).isEqualTo(1);
  }

  @Test
  void shouldNeedNoMoreThanStepsCanUse() {
    // Of prompts of up to 2,048 tokens, at 4 KB each as halves, 8,192 rows are enough for 17.
    assertThat(Widening.bytes(2048, 2048, 32, List.of(0, 8), 128)).isEqualTo(17L * 2048 * 4096);
    assertThat(Widening.bytes(119, 2048, 32, List.of(8), 128)).isZero();
    assertThat(Widening.bytes(8192, 131_072, 32, List.of(8), 128))
        .isEqualTo(BeforePrefill.MOST_BYTES);
    assertThat(Widening.bytes(8192, 131_072, 32, List.of(), 128)).isZero();
  }

  private void plan(Batch batch, long blockBytes) {
    plan.plan(batch, GROUP, KV_HEADS, 4 * 132);
    widening.plan(batch, plan, GROUP, blockBytes);
  }

  private static Batch batch(int[] queries, int[] contexts) {
    int columns = Math.ceilDiv(Arrays.stream(contexts).max().orElseThrow(), CudaKvCache.BLOCK);
    Batch batch = new Batch(queries.length, 1, columns);
    batch.sequences = queries.length;
    Arrays.setAll(batch.blockTable, i -> 7 * i + 3);
    for (int s = 0; s < queries.length; s++) {
      batch.queryStart[s + 1] = batch.queryStart[s] + queries[s];
      batch.contextLength[s] = contexts[s];
    }
    return batch;
  }

  private static IntStream row(Batch batch, int sequence, int count) {
    int from = sequence * batch.maxBlocks;
    return Arrays.stream(batch.blockTable, from, from + count);
  }

  private static List<Integer> ints(AttentionPlan.Ints ints) {
    return Arrays.stream(ints.values, 0, ints.count).boxed().toList();
  }

  private static List<Integer> distinct(AttentionPlan.Ints ints) {
    return ints(ints).stream().distinct().toList();
  }
}
