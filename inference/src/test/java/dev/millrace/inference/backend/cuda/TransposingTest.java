package dev.millrace.inference.backend.cuda;

import static org.assertj.core.api.Assertions.assertThat;

import dev.millrace.inference.engine.Batch;
import java.util.Arrays;
import java.util.List;
import org.junit.jupiter.api.Test;

class TransposingTest {
  private static final int KV_HEADS = 8;
  private static final long TILE_BYTES = KV_HEADS * 128 * 128;

  private final AttentionPlan plan = new AttentionPlan(false);
  private final Transposing transposing = new Transposing();

  @Test
  void shouldTakeAllSequencesWithSeveralQueryTokens() {
    plan(new int[] {800, 1, 2, 300}, new int[] {800, 700, 129, 384});

    assertThat(plan.tileSequence.count).isZero();
    assertThat(plan.itemSequence.count).isPositive();
    assertThat(ints(transposing.first)).containsExactly(0, -1, 7, 9);
    assertThat(ints(transposing.sequences)).containsExactly(0, 0, 0, 0, 0, 0, 0, 2, 2, 3, 3, 3);
    assertThat(ints(transposing.tiles)).containsExactly(0, 1, 2, 3, 4, 5, 6, 0, 1, 0, 1, 2);
    assertThat(transposing.tileToken.count).isEqualTo(25 + 1 + 10);
  }

  @Test
  void shouldLeaveToTheCacheWhatDoesNotFit() {
    transposing.limit(10 * TILE_BYTES);
    plan(new int[] {900, 500, 200}, new int[] {900, 500, 200});
    assertThat(ints(transposing.first)).containsExactly(0, -1, 8);
    assertThat(ints(plan.tileSequence).stream().distinct().toList()).containsExactly(1);

    plan(new int[] {1}, new int[] {600});
    assertThat(transposing.count()).isZero();
    assertThat(transposing.tileSequence.count).isZero();
  }

  @Test
  void shouldNeedNoMoreThanStepsCanUse() {
    assertThat(Transposing.bytes(10, 300, List.of(0, 2, 8))).isEqualTo(5 * 3 * TILE_BYTES);
    assertThat(Transposing.bytes(8192, 131_072, List.of(8))).isEqualTo(BeforePrefill.MOST_BYTES);
    assertThat(Transposing.bytes(8192, 131_072, List.of())).isZero();
  }

  private void plan(int[] queries, int[] contexts) {
    int columns = Math.ceilDiv(Arrays.stream(contexts).max().orElseThrow(), CudaKvCache.BLOCK);
    Batch batch = new Batch(queries.length, 1, columns);
    batch.sequences = queries.length;
    for (int s = 0; s < queries.length; s++) {
      batch.queryStart[s + 1] = batch.queryStart[s] + queries[s];
      batch.contextLength[s] = contexts[s];
    }
    plan.plan(batch, 4, KV_HEADS, 4 * 132);
    transposing.plan(batch, plan, 4, TILE_BYTES);
  }

  private static List<Integer> ints(AttentionPlan.Ints ints) {
    return Arrays.stream(ints.values, 0, ints.count).boxed().toList();
  }
}
