package dev.millrace.inference.backend.cuda;

import static org.assertj.core.api.Assertions.assertThat;

import dev.millrace.inference.engine.Batch;
import dev.millrace.kernels.AttentionKernels;
import java.util.Random;
import org.junit.jupiter.api.Test;

class AttentionPlanTest {
  private static final long SEED = 3;
  private static final int MULTIPROCESSORS = 132;

  @Test
  void shouldCoverEveryQueryAndEveryPositionOnce() {
    Random random = new Random(SEED);
    AttentionPlan plan = new AttentionPlan(false);
    for (int i = 0; i < 500; i++) {
      int sequences = 1 + random.nextInt(40);
      int group = 1 + random.nextInt(40);
      int kvHeads = 1 + random.nextInt(8);
      Batch batch = new Batch(sequences, 1, 1);
      batch.sequences = sequences;
      for (int s = 0; s < sequences; s++) {
        int queries = random.nextBoolean() ? 1 : 1 + random.nextInt(500);
        batch.queryStart[s + 1] = batch.queryStart[s] + queries;
        batch.contextLength[s] = queries + random.nextInt(random.nextBoolean() ? 100 : 40_000);
      }
      plan.plan(batch, group, kvHeads, MULTIPROCESSORS);
      check(batch, plan, group);
    }
  }

  private static void check(Batch batch, AttentionPlan plan, int group) {
    int tile = 0;
    int item = 0;
    int merge = 0;
    for (int s = 0; s < batch.sequences; s++) {
      int queries = batch.queryStart[s + 1] - batch.queryStart[s];
      if (queries > 1) {
        int tokens = AttentionKernels.TILE_ROWS / group;
        for (int token = (queries - 1) / tokens * tokens; token >= 0; token -= tokens) {
          assertThat(plan.tileSequence.get(tile)).as("seed %d", SEED).isEqualTo(s);
          assertThat(plan.tileToken.get(tile++)).as("seed %d", SEED).isEqualTo(token);
        }
        continue;
      }
      int first = item;
      int at = 0;
      while (at < batch.contextLength[s]) {
        assertThat(plan.itemSequence.get(item)).as("seed %d", SEED).isEqualTo(s);
        assertThat(plan.itemFrom.get(item)).isEqualTo(at);
        assertThat(at % CudaKvCache.BLOCK).isZero();
        at = plan.itemTo.get(item++);
      }
      assertThat(at).isEqualTo(batch.contextLength[s]);
      if (item - first > 1) {
        assertThat(plan.mergeSequence.get(merge)).isEqualTo(s);
        assertThat(plan.mergeFirst.get(merge)).isEqualTo(first);
        assertThat(plan.mergeItems.get(merge++)).isEqualTo(item - first);
      }
    }
    assertThat(plan.tileSequence.count).isEqualTo(tile);
    assertThat(plan.itemSequence.count).isEqualTo(item);
    assertThat(plan.mergeSequence.count).isEqualTo(merge);
    assertThat(item).isLessThanOrEqualTo(AttentionPlan.mostItems(batch.sequences, MULTIPROCESSORS));
  }

  @Test
  void shouldFillTheGpuWithOneSequenceAndNotCutManyUp() {
    AttentionPlan plan = new AttentionPlan(false);
    plan.plan(decodes(1, 32_768), 4, 8, MULTIPROCESSORS);
    assertThat(plan.itemSequence.count * 8).isBetween(2 * MULTIPROCESSORS, 5 * MULTIPROCESSORS);
    plan.plan(decodes(512, 1024), 4, 8, MULTIPROCESSORS);
    assertThat(plan.itemSequence.count).isEqualTo(512);
    assertThat(plan.mergeSequence.count).isZero();
  }

  @Test
  void shouldGiveEveryTokenToATileWhereResultsAreInvariant() {
    AttentionPlan plan = new AttentionPlan(true);
    plan.plan(decodes(5, 1024), 4, 8, MULTIPROCESSORS);
    assertThat(plan.tileSequence.count).isEqualTo(5);
    assertThat(plan.itemSequence.count).isZero();
    assertThat(plan.mergeSequence.count).isZero();
  }

  private static Batch decodes(int sequences, int context) {
    Batch batch = new Batch(sequences, sequences, 1);
    batch.sequences = sequences;
    for (int s = 0; s < sequences; s++) {
      batch.queryStart[s + 1] = s + 1;
      batch.contextLength[s] = context;
    }
    return batch;
  }
}
