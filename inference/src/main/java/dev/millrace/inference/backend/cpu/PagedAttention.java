package dev.millrace.inference.backend.cpu;

import static dev.millrace.inference.backend.cpu.CpuKvCache.BLOCK;

import dev.millrace.inference.engine.Batch;
import java.lang.foreign.MemorySegment;
import java.util.Arrays;

/**
 * Attention over paged keys and values, prefill and decode alike. A row is one query head of one
 * token. It visits its positions from 0 upwards in tiles of {@link #TILE}, keeping the largest
 * score and the sum so far (online softmax). Tiles lie at fixed positions, so what a row computes
 * depends neither on the chunk it came in nor on the rows beside it. Rows that share a KV head are
 * done four at a time over a tile that stays in cache. Used by one thread at a time.
 */
final class PagedAttention {
  /** Positions of a tile. */
  static final int TILE = 8 * BLOCK;

  /** Most rows of a work item. */
  private static final int ROWS = 32;

  private final Workers workers;
  private final Scratch[] scratch;

  private static final class Scratch {
    final float[] scores = new float[4 * TILE];
    final float[] factor = new float[4];
    final float[] max = new float[ROWS];
    final float[] sum = new float[ROWS];
    final int[] token = new int[ROWS];
    final int[] at = new int[ROWS];
    final long[] blocks = new long[TILE / BLOCK];
  }

  /** One call: q and out are [tokens, heads · headDim]. */
  private record Job(
      Batch batch, float[] q, float[] out, int heads, CpuKvCache cache, int layer, float scale) {
    int headDim() {
      return cache.headDim();
    }

    int group() {
      return heads / cache.kvHeads(layer);
    }
  }

  PagedAttention(Workers workers) {
    this.workers = workers;
    this.scratch = new Scratch[workers.count()];
    Arrays.setAll(scratch, i -> new Scratch());
  }

  void attend(Batch batch, float[] q, int heads, CpuKvCache cache, int layer, float[] out) {
    float scale = (float) (1 / Math.sqrt(cache.headDim()));
    Job job = new Job(batch, q, out, heads, cache, layer, scale);
    long work = 0;
    for (int s = 0; s < batch.sequences; s++) {
      int queries = batch.queryStart[s + 1] - batch.queryStart[s];
      work += (long) queries * batch.contextLength[s];
    }
    if (work * heads * cache.headDim() < 50_000) {
      part(job, 0, 1, scratch[0]);
    } else {
      workers.run((worker, count) -> part(job, worker, count, scratch[worker]));
    }
  }

  /** Work items are dealt out in turn, which spreads the later, longer ones of a prefill. */
  private static void part(Job job, int worker, int workers, Scratch scratch) {
    int group = job.group();
    int tokens = Math.max(1, ROWS / group);
    int heads = Math.min(group, ROWS);
    int item = 0;
    for (int s = 0; s < job.batch.sequences; s++) {
      int end = job.batch.queryStart[s + 1];
      for (int t = job.batch.queryStart[s]; t < end; t += tokens) {
        for (int kvHead = 0; kvHead < job.cache.kvHeads(job.layer); kvHead++) {
          for (int h = 0; h < group; h += heads) {
            if (item++ % workers == worker) {
              item(
                  job,
                  s,
                  kvHead,
                  t,
                  Math.min(tokens, end - t),
                  h,
                  Math.min(heads, group - h),
                  scratch);
            }
          }
        }
      }
    }
  }

  private static void item(
      Job job, int s, int kvHead, int t, int tokens, int h, int heads, Scratch scratch) {
    int d = job.headDim();
    int rows = 0;
    for (int i = 0; i < tokens; i++) {
      for (int j = 0; j < heads; j++) {
        int head = kvHead * job.group() + h + j;
        scratch.token[rows] = t + i;
        scratch.at[rows] = ((t + i) * job.heads + head) * d;
        Arrays.fill(job.out, scratch.at[rows], scratch.at[rows] + d, 0);
        rows++;
      }
    }
    Arrays.fill(scratch.max, 0, rows, Float.NEGATIVE_INFINITY);
    Arrays.fill(scratch.sum, 0, rows, 0);
    int last = job.batch.positions[t + tokens - 1];
    for (int first = 0; first <= last; first += TILE) {
      int blocks = Math.min(TILE, last - first + 1 + BLOCK - 1) / BLOCK;
      for (int b = 0; b < blocks; b++) {
        int block = job.batch.blockTable[s * job.batch.maxBlocks + first / BLOCK + b];
        scratch.blocks[b] = job.cache.at(job.layer, block, kvHead);
      }
      int r = 0;
      for (; r + 4 <= rows; r += 4) {
        tile(job, first, r, 4, scratch);
      }
      for (; r < rows; r++) {
        tile(job, first, r, 1, scratch);
      }
    }
    for (int r = 0; r < rows; r++) {
      AttentionKernels.divide(job.out, scratch.at[r], d, scratch.sum[r]);
    }
  }

  /** Lets {@code count} rows, 4 or 1, see the tile that begins at position {@code first}. */
  private static void tile(Job job, int first, int row, int count, Scratch scratch) {
    int d = job.headDim();
    MemorySegment keys = job.cache.keys(job.layer);
    MemorySegment values = job.cache.values(job.layer);
    float[] scores = scratch.scores;
    // Positions that the last of the rows sees; the others see as many or fewer.
    int seen = Math.min(TILE, job.batch.positions[scratch.token[row + count - 1]] - first + 1);
    if (seen <= 0) {
      return;
    }
    int blocks = (seen + BLOCK - 1) / BLOCK;
    if (count == 4) {
      for (int b = 0; b < blocks; b++) {
        AttentionKernels.scores4(
            keys, scratch.blocks[b], d, job.q, scratch.at, row, job.scale, scores, b * BLOCK);
      }
    } else {
      for (int b = 0; b < blocks; b += 2) {
        // Where the last block has no other beside it, it is done twice: nobody reads the second.
        long second = scratch.blocks[Math.min(b + 1, blocks - 1)];
        AttentionKernels.scores1(
            keys,
            scratch.blocks[b],
            second,
            d,
            job.q,
            scratch.at[row],
            job.scale,
            scores,
            b * BLOCK);
      }
    }
    for (int i = 0; i < count; i++) {
      int visible = job.batch.positions[scratch.token[row + i]] - first + 1;
      scratch.factor[i] = softmax(scores, i * TILE, visible, blocks * BLOCK, row + i, scratch);
    }
    if (count == 4) {
      AttentionKernels.values4(
          values, scratch.blocks, seen, d, scores, scratch.factor, job.out, scratch.at, row);
    } else {
      AttentionKernels.values1(
          values, scratch.blocks, seen, d, scores, scratch.factor[0], job.out, scratch.at[row]);
    }
  }

  /**
   * Turns a row's scores into weights relative to the largest score so far, 0 where the row must
   * not look.
   *
   * @return what the row's sums so far have to be multiplied by
   */
  private static float softmax(
      float[] scores, int at, int visible, int n, int row, Scratch scratch) {
    if (visible <= 0) {
      Arrays.fill(scores, at, at + n, 0);
      return 1;
    }
    if (visible < n) {
      Arrays.fill(scores, at + visible, at + n, Float.NEGATIVE_INFINITY);
    }
    float before = scratch.max[row];
    float max = before;
    for (int i = at; i < at + n; i++) {
      max = Math.max(max, scores[i]);
    }
    Rows.exp(scores, at, n, max);
    float factor = before == max ? 1 : (float) StrictMath.exp(before - max);
    scratch.max[row] = max;
    scratch.sum[row] = scratch.sum[row] * factor + sum(scores, at, n);
    return factor;
  }

  /** Adds up, n a multiple of 16, in a fixed order. */
  private static float sum(float[] x, int at, int n) {
    float s0 = 0;
    float s1 = 0;
    float s2 = 0;
    float s3 = 0;
    float s4 = 0;
    float s5 = 0;
    float s6 = 0;
    float s7 = 0;
    for (int i = at; i < at + n; i += 8) {
      s0 += x[i];
      s1 += x[i + 1];
      s2 += x[i + 2];
      s3 += x[i + 3];
      s4 += x[i + 4];
      s5 += x[i + 5];
      s6 += x[i + 6];
      s7 += x[i + 7];
    }
    return ((s0 + s4) + (s2 + s6)) + ((s1 + s5) + (s3 + s7));
  }
}
