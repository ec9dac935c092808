// What the kernels of attention over the paged cache share.
//
// The query heads that share a KV head are rows of one matrix, so that what is read of the cache
// serves them all. Softmax is taken on the way, tile by tile, as in FlashAttention-2 (Dao, 2023):
// each row carries its largest score and its sum so far, and what was summed under a smaller
// largest score is scaled down. Scores are times log2(e), so that exp2 does for exp.
//
// A layer's keys, and likewise its values, lie as [block][kvHead][16 tokens][headDim].
#pragma once

#include "block.cuh"
#include "mma.cuh"

constexpr int BLOCK_TOKENS = 16;

template <bool HALF>
__device__ __forceinline__ void multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                         uint32_t b1) {
  if constexpr (HALF) {
    mma_half(c, a, b0, b1);
  } else {
    mma(c, a, b0, b1);
  }
}

template <bool HALF>
__device__ __forceinline__ uint32_t packed(float low, float high) {
  return HALF ? pack_half(low, high) : pack(low, high);
}

// T: bf16 or e4m3.
template <typename T>
struct Paged {
  const T *keys;
  const T *values;
  const int *blocks; // of the sequence
  int kv_heads;
  int kv_head;
};

// Where a token's numbers of one head begin.
template <int D, typename T>
__device__ __forceinline__ size_t place(const Paged<T> &cache, int position) {
  size_t block = cache.blocks[position / BLOCK_TOKENS];
  return ((block * cache.kv_heads + cache.kv_head) * BLOCK_TOKENS + position % BLOCK_TOKENS) * D;
}

// Rows in shared memory are an odd number of 16 bytes apart: eight of them meet no bank twice.
constexpr int PART_BYTES = 16;
template <int D, typename T = bf16>
constexpr int STRIDE = (D * static_cast<int>(sizeof(T)) / PART_BYTES | 1) * PART_BYTES / sizeof(T);

// Brings TOKENS positions from `from` on, those from `end` on as zeros: what an earlier sequence
// left there may be anything, and 0 times infinity is no number.
template <int D, int TOKENS, int THREADS, typename T>
__device__ __forceinline__ void fetch(const Paged<T> &cache, int from, int end, int thread, T *keys,
                                      T *values) {
  constexpr int PART = PART_BYTES / sizeof(T);
  constexpr int PARTS = D / PART;
  constexpr int COUNT = TOKENS * PARTS;
#pragma unroll
  for (int i = 0; i < (COUNT + THREADS - 1) / THREADS; i++) {
    int unit = thread + i * THREADS;
    if (COUNT % THREADS == 0 || unit < COUNT) {
      int token = unit / PARTS;
      int part = unit % PARTS * PART;
      bool there = from + token < end;
      size_t at = place<D>(cache, there ? from + token : from) + part;
      copy_async(keys + token * STRIDE<D, T> + part, cache.keys + at, there);
      copy_async(values + token * STRIDE<D, T> + part, cache.values + at, there);
    }
  }
}

// The same of a block of the cache, for a warp: it lies in one piece, so it is looked up once.
template <int D, typename T>
__device__ __forceinline__ void fetch_block(const Paged<T> &cache, int from, int end, int lane,
                                            T *keys, T *values) {
  constexpr int PART = PART_BYTES / sizeof(T);
  constexpr int PARTS = D / PART;
  constexpr int COUNT = BLOCK_TOKENS * PARTS;
  size_t block = place<D>(cache, from);
#pragma unroll
  for (int i = 0; i < (COUNT + WARP - 1) / WARP; i++) {
    int unit = lane + i * WARP;
    if (COUNT % WARP == 0 || unit < COUNT) {
      int token = unit / PARTS;
      int to = token * STRIDE<D, T> + unit % PARTS * PART;
      bool there = from + token < end;
      copy_async(keys + to, cache.keys + block + unit * PART, there);
      copy_async(values + to, cache.values + block + unit * PART, there);
    }
  }
}

// Softmax of 16 rows on the way: a warp's share of scores and sums.
template <int D>
struct Sums {
  float out[D / 8][4];
  float largest[2]; // rows g and g + 8
  float sum[2];     // this thread's columns alone

  __device__ __forceinline__ void begin() {
#pragma unroll
    for (int n = 0; n < D / 8; n++) {
      out[n][0] = out[n][1] = out[n][2] = out[n][3] = 0.0f;
    }
    largest[0] = largest[1] = -INFINITY;
    sum[0] = sum[1] = 0.0f;
  }

  // From products to weights, of positions `from` on. Row g sees those up to last0, row g + 8 up to
  // last1; with MASK false the caller knows that both see all.
  template <int TOKENS, bool MASK>
  __device__ __forceinline__ void weigh(float (&s)[TOKENS / 8][4], int from, int last0, int last1,
                                        float scale) {
    int t = threadIdx.x % 4;
    float top0 = -INFINITY, top1 = -INFINITY;
#pragma unroll
    for (int j = 0; j < TOKENS / 8; j++) {
#pragma unroll
      for (int e = 0; e < 2; e++) {
        int position = from + j * 8 + 2 * t + e;
        s[j][e] = MASK && position > last0 ? -INFINITY : s[j][e] * scale;
        s[j][2 + e] = MASK && position > last1 ? -INFINITY : s[j][2 + e] * scale;
        top0 = fmaxf(top0, s[j][e]);
        top1 = fmaxf(top1, s[j][2 + e]);
      }
    }
    float base0 = raise(0, top0);
    float base1 = raise(1, top1);
#pragma unroll
    for (int j = 0; j < TOKENS / 8; j++) {
      s[j][0] = power_of_two(s[j][0] - base0);
      s[j][1] = power_of_two(s[j][1] - base0);
      s[j][2] = power_of_two(s[j][2] - base1);
      s[j][3] = power_of_two(s[j][3] - base1);
      sum[0] += s[j][0] + s[j][1];
      sum[1] += s[j][2] + s[j][3];
    }
  }

  // A row's largest score so far; scales down what was summed under the one before. Returns what
  // scores are taken relative to, which is 0 as long as the row has seen none.
  __device__ __forceinline__ float raise(int row, float top) {
    top = fmaxf(top, __shfl_xor_sync(ALL, top, 1));
    top = fmaxf(top, __shfl_xor_sync(ALL, top, 2));
    float before = largest[row];
    float now = fmaxf(before, top);
    largest[row] = now;
    float base = now == -INFINITY ? 0.0f : now;
    float shrink = exp2f(before - base);
    sum[row] *= shrink;
#pragma unroll
    for (int n = 0; n < D / 8; n++) {
      out[n][2 * row] *= shrink;
      out[n][2 * row + 1] *= shrink;
    }
    return base;
  }

  __device__ __forceinline__ float total(int row) {
    float all = sum[row];
    all += __shfl_xor_sync(ALL, all, 1);
    all += __shfl_xor_sync(ALL, all, 2);
    return all;
  }
};

// What a warp holds of 16 rows. HALF: numbers are IEEE halves, else bf16.
template <int D, bool HALF = false>
struct Rows : Sums<D> {
  uint32_t q[D / 16][4];

  static __device__ __forceinline__ uint32_t two(const bf16 *p) {
    if (p == nullptr) {
      return 0;
    }
    return HALF ? pack_half(load(p, 0), load(p, 1)) : *reinterpret_cast<const uint32_t *>(p);
  }

  // q0, q1: the heads of rows g and g + 8, null where there is no such row.
  __device__ __forceinline__ void begin(const bf16 *q0, const bf16 *q1) {
    int t = threadIdx.x % 4;
#pragma unroll
    for (int k = 0; k < D / 16; k++) {
      int column = k * 16 + 2 * t;
      q[k][0] = two(q0 ? q0 + column : nullptr);
      q[k][1] = two(q1 ? q1 + column : nullptr);
      q[k][2] = two(q0 ? q0 + column + 8 : nullptr);
      q[k][3] = two(q1 ? q1 + column + 8 : nullptr);
    }
    Sums<D>::begin();
  }

  // Takes TOKENS positions from `from` on, as weigh() says. Keys and values are two bytes each.
  template <int TOKENS, bool MASK>
  __device__ __forceinline__ void attend(const bf16 *keys, const bf16 *values, int from, int last0,
                                         int last1, float scale) {
    int lane = threadIdx.x % WARP;
    float s[TOKENS / 8][4];
#pragma unroll
    for (int j = 0; j < TOKENS / 8; j++) {
      s[j][0] = s[j][1] = s[j][2] = s[j][3] = 0.0f;
    }
#pragma unroll
    for (int k = 0; k < D / 16; k++) {
#pragma unroll
      for (int j = 0; j < TOKENS / 8; j += 2) {
        uint32_t b[4];
        int token = j * 8 + lane / 16 * 8 + lane % 8;
        load_matrices(b, keys + token * STRIDE<D> + k * 16 + lane / 8 % 2 * 8);
        multiply<HALF>(s[j], q[k], b[0], b[1]);
        multiply<HALF>(s[j + 1], q[k], b[2], b[3]);
      }
    }
    this->template weigh<TOKENS, MASK>(s, from, last0, last1, scale);
#pragma unroll
    for (int k = 0; k < TOKENS / 16; k++) {
      // The scores lie as C does; two of them side by side lie as A does.
      uint32_t p[4] = {packed<HALF>(s[2 * k][0], s[2 * k][1]), packed<HALF>(s[2 * k][2], s[2 * k][3]),
                       packed<HALF>(s[2 * k + 1][0], s[2 * k + 1][1]),
                       packed<HALF>(s[2 * k + 1][2], s[2 * k + 1][3])};
#pragma unroll
      for (int n = 0; n < D / 8; n += 2) {
        uint32_t b[4];
        int token = k * 16 + lane % 16;
        load_transposed(b, values + token * STRIDE<D> + n * 8 + lane / 16 * 8);
        multiply<HALF>(this->out[n], p, b[0], b[1]);
        multiply<HALF>(this->out[n + 1], p, b[2], b[3]);
      }
    }
  }
};

constexpr int DECODE_WARPS = 4;

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

// Puts the warps' shares together, weighted by their sums. memory: [warp][16][D] floats, and no
// warp reads what is there. PAIRS: columns 2i and 2i + 1 of 16 are in two tiles of eight at i.
template <int D, bool PAIRS>
__device__ __forceinline__ void finish(Sums<D> &rows, float *memory, const Decoded &to) {
  __shared__ float tops[DECODE_WARPS][16];
  __shared__ float sums[DECODE_WARPS][16];
  int warp = threadIdx.x / WARP;
  int g = threadIdx.x % WARP / 4;
  int t = threadIdx.x % 4;
  float sum0 = rows.total(0);
  float sum1 = rows.total(1);
  if (t == 0) {
    tops[warp][g] = rows.largest[0];
    tops[warp][g + 8] = rows.largest[1];
    sums[warp][g] = sum0;
    sums[warp][g + 8] = sum1;
  }
  __syncthreads(); // the stages are read no more
#pragma unroll
  for (int n = 0; n < D / 8; n++) {
    constexpr int NEXT = PAIRS ? 2 : 1;
    int column = PAIRS ? n / 2 * 16 + n % 2 + 4 * t : n * 8 + 2 * t;
    float *share = memory + (warp * 16 + g) * D + column;
    share[0] = rows.out[n][0];
    share[NEXT] = rows.out[n][1];
    share[8 * D] = rows.out[n][2];
    share[8 * D + NEXT] = rows.out[n][3];
  }
  __syncthreads();
  for (int i = threadIdx.x; i < to.heads * D; i += DECODE_WARPS * WARP) {
    int row = i / D;
    int column = i % D;
    float top = tops[0][row];
#pragma unroll
    for (int w = 1; w < DECODE_WARPS; w++) {
      top = fmaxf(top, tops[w][row]);
    }
    float sum = 0.0f, value = 0.0f;
#pragma unroll
    for (int w = 0; w < DECODE_WARPS; w++) {
      float factor = exp2f(tops[w][row] - top);
      sum += sums[w][row] * factor;
      value += memory[(w * 16 + row) * D + column] * factor;
    }
    value *= to.factor / sum;
    if (to.whole) {
      store(to.out, i, value);
    } else {
      to.partial[i] = value;
      if (column == 0) {
        to.weight[row] = top + log2f(sum);
      }
    }
  }
}

// One query token of a sequence over a stretch of its context. Block (x, y): item x of KV head
// y / parts and of its group the 16 heads from y % parts * 16 on, where parts = ceil(group / 16).
// Each warp takes every fourth block of the stretch through a pipeline of its own. An item that is
// all of its sequence goes to out, others to partial and weight, for merge.
//
// memory: [warp][stage][keys, values][16][STRIDE] of T. R: the rows of a warp; PAIRS: as in finish.
// scale is that of products, factor that of values.
template <int D, int STAGES, typename T, typename R, bool PAIRS>
__device__ __forceinline__ void decode(T *memory, const bf16 *q, const T *keys, const T *values,
                                       bf16 *out, float *partial, float *weight,
                                       const int *query_start, const int *context_length,
                                       const int *block_table, const int *item_sequence,
                                       const int *item_from, const int *item_to, int max_blocks,
                                       int kv_heads, int group, int q_stride, int out_stride,
                                       float scale, float factor) {
  constexpr int TILE = BLOCK_TOKENS * STRIDE<D, T>;
  int item = blockIdx.x;
  int sequence = item_sequence[item];
  int from = item_from[item];
  int to = item_to[item];
  if (from >= to) {
    return; // no item: a graph's grid has room for the most
  }
  int parts = (group + 15) / 16;
  int first_head = blockIdx.y % parts * 16;
  int heads_here = min(16, group - first_head);
  Paged<T> cache = {keys, values, block_table + static_cast<size_t>(sequence) * max_blocks,
                    kv_heads, static_cast<int>(blockIdx.y) / parts};
  size_t head = static_cast<size_t>(cache.kv_head) * group + first_head;
  size_t query = query_start[sequence];

  int warp = threadIdx.x / WARP;
  int lane = threadIdx.x % WARP;
  int g = lane / 4;
  T *stages = memory + warp * STAGES * 2 * TILE;
  R rows;
  const bf16 *heads = q + query * q_stride + head * D;
  rows.begin(g < heads_here ? heads + g * D : nullptr,
             g + 8 < heads_here ? heads + (g + 8) * D : nullptr);

  int step = DECODE_WARPS * BLOCK_TOKENS;
  int next = from + warp * BLOCK_TOKENS;
#pragma unroll
  for (int i = 0; i < STAGES - 1; i++) {
    if (next < to) {
      fetch_block<D>(cache, next, to, lane, stages + 2 * i * TILE, stages + (2 * i + 1) * TILE);
    }
    commit_copies();
    next += step;
  }
  int stage = 0;
  for (int at = from + warp * BLOCK_TOKENS; at < to; at += step) {
    int free = (stage + STAGES - 1) % STAGES;
    if (next < to) {
      fetch_block<D>(cache, next, to, lane, stages + 2 * free * TILE,
                     stages + (2 * free + 1) * TILE);
    }
    commit_copies();
    next += step;
    await_copies<STAGES - 1>();
    __syncwarp();
    const T *k = stages + 2 * stage * TILE;
    if (at + BLOCK_TOKENS <= to) {
      rows.template attend<BLOCK_TOKENS, false>(k, k + TILE, at, to - 1, to - 1, scale);
    } else {
      rows.template attend<BLOCK_TOKENS, true>(k, k + TILE, at, to - 1, to - 1, scale);
    }
    __syncwarp();
    stage = (stage + 1) % STAGES;
  }
  await_copies<0>();

  size_t at = static_cast<size_t>(item) * kv_heads * group + head;
  bool whole = from == 0 && to == context_length[sequence];
  finish<D, PAIRS>(rows, reinterpret_cast<float *>(memory),
                   {out + query * out_stride + head * D, partial + at * D, weight + at,
                    heads_here, whole, factor});
}
