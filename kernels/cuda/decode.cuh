// Attention of one query token of a sequence, over the paged cache: what is left of the time is
// spent on reading it.
//
// Tensor cores multiply 16 rows by 8 columns. Query heads that share a KV head are few, so that they
// are the columns: keys times queries, then values, transposed, times weights. Positions are rows
// first and what is summed over next, so weights are transposed between warps' registers.
#pragma once

#include "attention.cuh"
#include "fp8.cuh"
#include "overlap.cuh"

constexpr int DECODE_WARPS = 4;

// Weights reach 2^SLACK before what scores are taken relative to is raised: a warp rarely has to
// agree on a largest score and to scale down what it has summed. Halves hold them as well as
// weights up to 1.
constexpr float SLACK = 8.0f;

// Brings a block of the cache, its positions `from` on, those from `end` on as zeros: what an earlier
// sequence left there may be anything, and 0 times infinity is no number.
template <int D, typename T>
__device__ __forceinline__ void fetch_block(const Paged<T> &cache, int block, int from, int end,
                                            int lane, T *keys, T *values) {
  constexpr int PART = PART_BYTES / sizeof(T);
  constexpr int PARTS = D / PART;
  constexpr int COUNT = BLOCK_TOKENS * PARTS;
  size_t at = (static_cast<size_t>(block) * cache.kv_heads + cache.kv_head) * BLOCK_TOKENS * D;
#pragma unroll
  for (int i = 0; i < (COUNT + WARP - 1) / WARP; i++) {
    int unit = lane + i * WARP;
    if (COUNT % WARP == 0 || unit < COUNT) {
      int token = unit / PARTS;
      int to = token * STRIDE<D, T> + unit % PARTS * PART;
      bool there = from + token < end;
      copy_async(keys + to, cache.keys + at + unit * PART, there);
      copy_async(values + to, cache.values + at + unit * PART, there);
    }
  }
}

// What a warp holds of up to 8 * TILES query heads. With g = lane / 4 and t = lane % 4 a thread has
// heads 2t and 2t + 1 of each tile.
//
// e4m3 goes from shared memory to registers as it is, four numbers a thread where the matrix units
// want two and two, so which number of a head is called which is chosen to fit:
//   of 16 numbers of a query and a key a thread holds 4t..4t+3, as numbers 2t, 2t+1, 2t+8 and 2t+9;
//   of 16 numbers of a value, numbers 2i are rows 0 to 7, numbers 2i + 1 rows 8 to 15.
template <int D, typename T, int TILES>
struct Columns {
  static constexpr bool HALF = sizeof(T) == 1;
  static constexpr int S = STRIDE<D, T>;
  uint32_t q[D / 16][TILES][2];
  float out[D / 16][TILES][4];
  float base[TILES][2]; // what scores are taken relative to
  float sum[TILES][2];  // of this thread's positions alone

  static __device__ __forceinline__ uint32_t two(const bf16 *p) {
    return HALF ? pack_half(load(p, 0), load(p, 1)) : *reinterpret_cast<const uint32_t *>(p);
  }

  // heads: so many queries, one behind another.
  __device__ __forceinline__ void begin(const bf16 *heads, int count) {
    int lane = threadIdx.x % WARP;
    int t = lane % 4;
#pragma unroll
    for (int n = 0; n < TILES; n++) {
      int head = n * 8 + lane / 4;
      const bf16 *query = heads + head * D;
#pragma unroll
      for (int k = 0; k < D / 16; k++) {
        q[k][n][0] = head < count ? two(query + k * 16 + (HALF ? 4 * t : 2 * t)) : 0;
        q[k][n][1] = head < count ? two(query + k * 16 + (HALF ? 4 * t + 2 : 2 * t + 8)) : 0;
      }
    }
    clear();
  }

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int n = 0; n < TILES; n++) {
#pragma unroll
      for (int k = 0; k < D / 16; k++) {
        out[k][n][0] = out[k][n][1] = out[k][n][2] = out[k][n][3] = 0.0f;
      }
      base[n][0] = base[n][1] = -INFINITY;
      sum[n][0] = sum[n][1] = 0.0f;
    }
  }

  // Takes the 16 positions from `from` on, or with MASK those of them up to `last`.
  template <bool MASK>
  __device__ __forceinline__ void attend(const T *keys, const T *values, int from, int last,
                                         float scale) {
    float s[TILES][4] = {};
    scores(s, keys);
    uint32_t p[TILES][2];
    weigh<MASK>(s, p, from, last, scale);
    take(p, values);
  }

  // From products of the 16 positions from `from` on, which lie as C does, to weights, which lie as B.
  template <bool MASK>
  __device__ __forceinline__ void weigh(float (&s)[TILES][4], uint32_t (&p)[TILES][2], int from,
                                        int last, float scale) {
    int g = threadIdx.x % WARP / 4;
    bool over = false;
#pragma unroll
    for (int n = 0; n < TILES; n++) {
#pragma unroll
      for (int j = 0; j < 4; j++) {
        s[n][j] = MASK && from + g + j / 2 * 8 > last ? -INFINITY : s[n][j] * scale;
        over |= s[n][j] > base[n][j % 2] + SLACK;
      }
    }
    if (__any_sync(ALL, over)) {
      raise(s);
    }
#pragma unroll
    for (int n = 0; n < TILES; n++) {
#pragma unroll
      for (int j = 0; j < 4; j++) {
        s[n][j] = power_of_two(s[n][j] - base[n][j % 2]);
        sum[n][j % 2] += s[n][j];
      }
      p[n][0] = transposed(packed<HALF>(s[n][0], s[n][1]));
      p[n][1] = transposed(packed<HALF>(s[n][2], s[n][3]));
    }
  }

  __device__ __forceinline__ void scores(float (&s)[TILES][4], const T *keys) {
    // Matrix i of four: rows i % 2 * 8 on, of each 16 bytes, i / 2 * 16 bytes on.
    int lane = threadIdx.x % WARP;
    const T *row = keys + lane % 16 * S;
    int next = lane / 16;
#pragma unroll
    for (int k = 0; k < D / 16; k += HALF ? 2 : 1) {
      uint32_t r[4];
      if constexpr (HALF) {
        load_matrices(r, row + min(k + next, D / 16 - 1) * 16);
        multiply_all(s, {halves(r[0]), halves(r[1]), halves(r[0] >> 16), halves(r[1] >> 16)}, q[k]);
        if (k + 1 < D / 16) {
          multiply_all(s, {halves(r[2]), halves(r[3]), halves(r[2] >> 16), halves(r[3] >> 16)},
                       q[k + 1 < D / 16 ? k + 1 : k]);
        }
      } else {
        load_matrices(r, row + k * 16 + next * 8);
        multiply_all(s, {r[0], r[1], r[2], r[3]}, q[k]);
      }
    }
  }

  struct Rows16 {
    uint32_t r[4];
  };

  static __device__ __forceinline__ void multiply_all(float (&c)[TILES][4], const Rows16 &a,
                                                      const uint32_t (&b)[TILES][2]) {
#pragma unroll
    for (int n = 0; n < TILES; n++) {
      multiply<HALF>(c[n], a.r, b[n][0], b[n][1]);
    }
  }

  // Takes scores relative to the largest so far, and scales down what was summed before.
  __device__ __forceinline__ void raise(const float (&s)[TILES][4]) {
#pragma unroll
    for (int n = 0; n < TILES; n++) {
#pragma unroll
      for (int e = 0; e < 2; e++) {
        float top = fmaxf(s[n][e], s[n][2 + e]);
        top = fmaxf(top, __shfl_xor_sync(ALL, top, 4));
        top = fmaxf(top, __shfl_xor_sync(ALL, top, 8));
        top = fmaxf(top, __shfl_xor_sync(ALL, top, 16));
        float before = base[n][e];
        top = fmaxf(before, top);
        base[n][e] = top;
        // Nothing was summed before there was a score.
        float shrink = before == -INFINITY ? 0.0f : power_of_two(before - top);
        sum[n][e] *= shrink;
#pragma unroll
        for (int k = 0; k < D / 16; k++) {
          out[k][n][e] *= shrink;
          out[k][n][2 + e] *= shrink;
        }
      }
    }
  }

  __device__ __forceinline__ void take(const uint32_t (&p)[TILES][2], const T *values) {
    int lane = threadIdx.x % WARP;
#pragma unroll
    for (int n = 0; n < D / 16; n += HALF ? 2 : 1) {
      uint32_t r[4];
      if constexpr (HALF) {
        load_transposed(r, values + lane % 16 * S + min(n + lane / 16, D / 16 - 1) * 16);
        multiply_all(out[n], pairs(r[0], r[1]), p);
        if (n + 1 < D / 16) {
          multiply_all(out[n + 1 < D / 16 ? n + 1 : n], pairs(r[2], r[3]), p);
        }
      } else {
        load_transposed(r, values + (lane / 16 * 8 + lane % 8) * S + n * 16 + lane / 8 % 2 * 8);
        multiply_all(out[n], {r[0], r[1], r[2], r[3]}, p);
      }
    }
  }

  // low: positions 0 to 7, high: 8 to 15, each two positions of two numbers.
  static __device__ __forceinline__ Rows16 pairs(uint32_t low, uint32_t high) {
    constexpr unsigned EVEN = 0x4420, ODD = 0x4431;
    return {halves(__byte_perm(low, 0, EVEN)), halves(__byte_perm(low, 0, ODD)),
            halves(__byte_perm(high, 0, EVEN)), halves(__byte_perm(high, 0, ODD))};
  }

  // Where finish() keeps a number of a head, of those that lie in `out` one after another.
  static __device__ __forceinline__ int kept_at(int number) { return number; }

  __device__ __forceinline__ float total(int n, int e) {
    float all = sum[n][e];
    all += __shfl_xor_sync(ALL, all, 4);
    all += __shfl_xor_sync(ALL, all, 8);
    return all + __shfl_xor_sync(ALL, all, 16);
  }
};

// Where a decode leaves its results: those of a whole sequence in out, others in partial
// [item][head][D] and weight [item][head], the logarithm (to base 2) of the sum.
struct Decoded {
  bf16 *out; // of the first head
  float *partial; // likewise
  float *weight; // likewise
  int heads;
  bool whole;
  float factor; // of the values
};

// Puts the warps' shares together, weighted by their sums. memory: [warp][head][D] floats.
template <int D, typename T, int TILES, typename C>
__device__ __forceinline__ void finish(C &mine, float *memory, const Decoded &to) {
  constexpr int HEADS = 8 * TILES;
  constexpr bool HALF = sizeof(T) == 1;
  __shared__ float bases[DECODE_WARPS][HEADS];
  __shared__ float sums[DECODE_WARPS][HEADS];
  int warp = threadIdx.x / WARP;
  int g = threadIdx.x % WARP / 4;
  int t = threadIdx.x % 4;
  __syncthreads(); // the stages are read no more
#pragma unroll
  for (int n = 0; n < TILES; n++) {
#pragma unroll
    for (int e = 0; e < 2; e++) {
      int head = n * 8 + 2 * t + e;
      float sum = mine.total(n, e);
      if (g == 0) {
        bases[warp][head] = mine.base[n][e];
        sums[warp][head] = sum;
      }
      float *share = memory + (warp * HEADS + head) * D;
#pragma unroll
      for (int k = 0; k < D / 16; k++) {
        share[k * 16 + (HALF ? 2 * g : g)] = mine.out[k][n][e];
        share[k * 16 + (HALF ? 2 * g + 1 : g + 8)] = mine.out[k][n][2 + e];
      }
    }
  }
  __syncthreads();
  for (int i = threadIdx.x; i < to.heads * D; i += DECODE_WARPS * WARP) {
    int head = i / D;
    int column = i % D;
    float top = bases[0][head];
#pragma unroll
    for (int w = 1; w < DECODE_WARPS; w++) {
      top = fmaxf(top, bases[w][head]);
    }
    float sum = 0.0f, value = 0.0f;
#pragma unroll
    for (int w = 0; w < DECODE_WARPS; w++) {
      float factor = exp2f(bases[w][head] - top);
      sum += sums[w][head] * factor;
      value += memory[(w * HEADS + head) * D + C::kept_at(column)] * factor;
    }
    value *= to.factor / sum;
    if (to.whole) {
      store(to.out, i, value);
    } else {
      to.partial[i] = value;
      if (column == 0) {
        to.weight[head] = top + log2f(sum);
      }
    }
  }
}

// One query token of a sequence over a stretch of its context. Block (x, y): item x of KV head
// y / parts and of its group the heads from y % parts * 8 * TILES on, where parts is how many times
// so many heads are in a group. Each warp takes every fourth block of the stretch through a pipeline
// of its own. An item that is all of its sequence goes to out, others to partial and weight, for
// merge.
//
// memory: [warp][stage][keys, values][16][STRIDE] of T. scale is that of products, factor that of
// values.
template <int D, int STAGES, typename T, int TILES>
__device__ __forceinline__ void decode(bf16 *memory, const bf16 *q, const T *keys, const T *values,
                                       bf16 *out, float *partial, float *weight,
                                       const int *query_start, const int *context_length,
                                       const int *block_table, const int *item_sequence,
                                       const int *item_from, const int *item_to, int max_blocks,
                                       int kv_heads, int group, int q_stride, int out_stride,
                                       float scale, float factor) {
  constexpr int TILE = BLOCK_TOKENS * STRIDE<D, T>;
  constexpr int HEADS = 8 * TILES;
  admit_next();
  int item = blockIdx.x;
  int sequence = item_sequence[item];
  int from = item_from[item];
  int to = item_to[item];
  if (from >= to) {
    await_previous();
    return; // no item: a graph's grid has room for the most
  }
  int parts = (group + HEADS - 1) / HEADS;
  int first_head = blockIdx.y % parts * HEADS;
  int heads_here = min(HEADS, group - first_head);
  Paged<T> cache = {keys, values, block_table + static_cast<size_t>(sequence) * max_blocks,
                    kv_heads, static_cast<int>(blockIdx.y) / parts};
  size_t head = static_cast<size_t>(cache.kv_head) * group + first_head;
  size_t query = query_start[sequence];

  int warp = threadIdx.x / WARP;
  int lane = threadIdx.x % WARP;
  T *stages = reinterpret_cast<T *>(memory) + warp * STAGES * 2 * TILE;
  constexpr int STEP = DECODE_WARPS * BLOCK_TOKENS;
  int next = from + warp * BLOCK_TOKENS;
  // A block's number is asked for one fetch ahead: nothing waits for it.
  int block = next < to ? cache.blocks[next / BLOCK_TOKENS] : 0;
  auto fetch = [&](int stage) {
    if (next < to) {
      fetch_block<D>(cache, block, next, to, lane, stages + 2 * stage * TILE,
                     stages + (2 * stage + 1) * TILE);
    }
    commit_copies();
    next += STEP;
    block = next < to ? cache.blocks[next / BLOCK_TOKENS] : 0;
  };
  // The kernel before makes the query, and stores the last position. What lies in blocks before that
  // position's has been there since earlier steps, which have ended: a step begins with a copy, or is
  // a graph.
  int made = (context_length[sequence] - 1) / BLOCK_TOKENS * BLOCK_TOKENS;
  bool early = next + (STAGES - 2) * STEP < made;
  if (!early) {
    await_previous();
  }
#pragma unroll
  for (int i = 0; i < STAGES - 1; i++) {
    fetch(i);
  }
  if (early) {
    await_previous();
  }
  Columns<D, T, TILES> mine;
  mine.begin(q + query * q_stride + head * D, heads_here);
  int stage = 0;
  for (int at = from + warp * BLOCK_TOKENS; at < to; at += STEP) {
    fetch((stage + STAGES - 1) % STAGES);
    await_copies<STAGES - 1>();
    __syncwarp();
    const T *k = stages + 2 * stage * TILE;
    if (at + BLOCK_TOKENS <= to) {
      mine.template attend<false>(k, k + TILE, at, to - 1, scale);
    } else {
      mine.template attend<true>(k, k + TILE, at, to - 1, scale);
    }
    __syncwarp();
    stage = (stage + 1) % STAGES;
  }
  await_copies<0>();

  size_t at = static_cast<size_t>(item) * kv_heads * group + head;
  bool whole = from == 0 && to == context_length[sequence];
  finish<D, T, TILES>(mine, reinterpret_cast<float *>(memory),
                      {out + query * out_stride + head * D, partial + at * D, weight + at,
                       heads_here, whole, factor});
}

// With a pipeline of so many stages, 2 or 3: what the chip has memory for.
template <int D, typename T, int TILES, typename... A>
__device__ __forceinline__ void decode_in(int stages, A... arguments) {
  if (stages == 2) {
    decode<D, 2, T, TILES>(arguments...);
  } else {
    decode<D, 3, T, TILES>(arguments...);
  }
}
