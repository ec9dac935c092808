package dev.millrace.inference.backend.cuda;

import static org.assertj.core.api.Assertions.assertThat;

import dev.millrace.inference.engine.Batch;
import dev.millrace.kernels.AttentionKernels;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

class AttentionPlanTest {
  private static final long SEED = 3;
  private static final int MULTIPROCESSORS = 132;
  private static final int AT_ONCE = 4 * MULTIPROCESSORS;

  private final AttentionPlan plan = new AttentionPlan(false);

  @Test
  void shouldCoverEveryQueryAndEveryPositionOnce() {
    Random random = new Random(SEED);
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
      plan.plan(batch, group, kvHeads, AT_ONCE);
      check(batch, group);
    }
  }

  private void check(Batch batch, int group) {
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
  void shouldFillTheGpuWithOneLongSequence() {
    plan.plan(decodes(1, 32_768), 4, 8, AT_ONCE);
    assertThat(plan.itemSequence.count * 8).isBetween(MULTIPROCESSORS, 4 * MULTIPROCESSORS);
    assertThat(plan.mergeSequence.count).isEqualTo(1);
  }

  @ParameterizedTest
  @CsvSource({"512, 1024", "64, 16000", "32, 1250", "16, 1250", "1, 600"})
  void shouldNotCutWhatReadsAsFastWhole(int sequences, int context) {
    plan.plan(decodes(sequences, context), 4, 8, AT_ONCE);
    assertThat(plan.itemSequence.count).isEqualTo(sequences);
    assertThat(plan.mergeSequence.count).isZero();
  }

  @Test
  void shouldCutLongSequencesThatAreALittleMoreThanRunAtOnce() {
    plan.plan(decodes(74, 16_000), 4, 8, AT_ONCE);
    assertThat(plan.itemSequence.count).isBetween(2 * 74, 8 * 74);
  }

  /** Two of bfloat16's blocks run at once where four of FP8 do. */
  @Test
  void shouldCutByWhatRunsAtOnce() {
    plan.plan(decodes(40, 16_000), 4, 8, AT_ONCE / 2);
    assertThat(plan.itemSequence.count).isGreaterThanOrEqualTo(2 * 40);
    plan.plan(decodes(40, 16_000), 4, 8, AT_ONCE);
    assertThat(plan.itemSequence.count).isEqualTo(40);
  }

  @Test
  void shouldFillTheGpuWhereThereIsOneKvHead() {
    plan.plan(decodes(1, 1_000_000), 8, 1, AT_ONCE);
    assertThat(plan.itemSequence.count).isGreaterThan(MULTIPROCESSORS);
  }

  /** Or that test on a card, and on the emulated one, would see no merge any more. */
  @ParameterizedTest
  @ValueSource(ints = {4 * 4, AT_ONCE / 2, AT_ONCE})
  void shouldCutWhatBackendTestTakesToBeLong(int atOnce) {
    Batch batch = decodes(2, 41);
    batch.contextLength[0] = 1506;
    for (int group : new int[] {4, 12, 20}) {
      plan.plan(batch, group, 1, atOnce);
      assertThat(plan.mergeSequence.count).isEqualTo(1);
    }
  }

  @Test
  void shouldCutTheOneLongSequenceAmongShortOnes() {
    Batch batch = decodes(600, 500);
    batch.contextLength[300] = 100_000;
    plan.plan(batch, 4, 8, AT_ONCE);
    assertThat(plan.itemSequence.count).isBetween(604, 700);
    assertThat(plan.mergeSequence.count).isEqualTo(1);
  }

  @Test
  void shouldNotCutMoreThanThereIsRoomFor() {
    Random random = new Random(SEED);
    for (int i = 0; i < 2_000; i++) {
      int kvHeads = 1 + random.nextInt(16);
      int group = 1 + random.nextInt(32);
      Batch batch = decodes(1 + random.nextInt(300), 1);
      int most = 1 << random.nextInt(18);
      for (int s = 0; s < batch.sequences; s++) {
        batch.contextLength[s] = 1 + random.nextInt(random.nextInt(4) == 0 ? most : 1_000);
      }
      plan.plan(batch, group, kvHeads, AT_ONCE);
      int cuts = AttentionPlan.mostCuts(batch.sequences, group, kvHeads, AT_ONCE);
      assertThat(plan.itemSequence.count)
          .as("seed %d, round %d", SEED, i)
          .isLessThanOrEqualTo(batch.sequences + cuts)
          .isLessThanOrEqualTo(AttentionPlan.mostItems(batch.sequences, MULTIPROCESSORS));
      assertThat(plan.mergeSequence.count).isLessThanOrEqualTo(Math.min(batch.sequences, cuts));
    }
  }

  @Test
  void shouldGiveEveryTokenToATileWhereResultsAreInvariant() {
    AttentionPlan fixed = new AttentionPlan(true);
    fixed.plan(decodes(5, 1024), 4, 8, AT_ONCE);
    assertThat(fixed.tileSequence.count).isEqualTo(5);
    assertThat(fixed.itemSequence.count).isZero();
    assertThat(fixed.mergeSequence.count).isZero();
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
