// Attention over the paged cache: softmax(q * K^T / sqrt(headDim)) * V.
//
// The query heads that share a KV head are rows of one matrix, so that what is read of the cache
// serves them all. Softmax is taken on the way, tile by tile, as in FlashAttention-2 (Dao, 2023):
// each row carries its largest score and its sum so far, and what was summed under a smaller
// largest score is scaled down. Scores are times log2(e), so that exp2 does for exp.
//
// A layer's keys, and likewise its values, lie as [block][kvHead][16 tokens][headDim].

#include "block.cuh"
#include "mma.cuh"

constexpr int BLOCK_TOKENS = 16;

struct Paged {
  const bf16 *keys;
  const bf16 *values;
  const int *blocks; // of the sequence
  int kv_heads;
  int kv_head;
};

// Where a token's numbers of one head begin.
template <int D>
__device__ __forceinline__ size_t place(const Paged &cache, int position) {
  size_t block = cache.blocks[position / BLOCK_TOKENS];
  return ((block * cache.kv_heads + cache.kv_head) * BLOCK_TOKENS + position % BLOCK_TOKENS) * D;
}

// Rows in shared memory are an odd number of 16 bytes apart: eight of them meet no bank twice.
template <int D>
constexpr int STRIDE = D + VECTOR;

// Brings TOKENS positions from `from` on, those from `end` on as zeros: what an earlier sequence
// left there may be anything, and 0 times infinity is no number.
template <int D, int TOKENS, int THREADS>
__device__ __forceinline__ void fetch(const Paged &cache, int from, int end, int thread, bf16 *keys,
                                      bf16 *values) {
  constexpr int PARTS = D / VECTOR;
  constexpr int COUNT = TOKENS * PARTS;
#pragma unroll
  for (int i = 0; i < (COUNT + THREADS - 1) / THREADS; i++) {
    int unit = thread + i * THREADS;
    if (COUNT % THREADS == 0 || unit < COUNT) {
      int token = unit / PARTS;
      int part = unit % PARTS * VECTOR;
      bool there = from + token < end;
      size_t at = place<D>(cache, there ? from + token : from) + part;
      copy_async(keys + token * STRIDE<D> + part, cache.keys + at, there);
      copy_async(values + token * STRIDE<D> + part, cache.values + at, there);
    }
  }
}

// What a warp holds of 16 rows.
template <int D>
struct Rows {
  uint32_t q[D / 16][4];
  float out[D / 8][4];
  float largest[2]; // rows g and g + 8
  float sum[2];     // this thread's columns alone

  // q0, q1: the heads of rows g and g + 8, null where there is no such row.
  __device__ __forceinline__ void begin(const bf16 *q0, const bf16 *q1) {
    int t = threadIdx.x % 4;
#pragma unroll
    for (int k = 0; k < D / 16; k++) {
      int column = k * 16 + 2 * t;
      q[k][0] = q0 ? *reinterpret_cast<const uint32_t *>(q0 + column) : 0;
      q[k][1] = q1 ? *reinterpret_cast<const uint32_t *>(q1 + column) : 0;
      q[k][2] = q0 ? *reinterpret_cast<const uint32_t *>(q0 + column + 8) : 0;
      q[k][3] = q1 ? *reinterpret_cast<const uint32_t *>(q1 + column + 8) : 0;
    }
#pragma unroll
    for (int n = 0; n < D / 8; n++) {
      out[n][0] = out[n][1] = out[n][2] = out[n][3] = 0.0f;
    }
    largest[0] = largest[1] = -INFINITY;
    sum[0] = sum[1] = 0.0f;
  }

  // Takes TOKENS positions from `from` on. Row g sees those up to last0, row g + 8 up to last1;
  // with MASK false the caller knows that both see all.
  template <int TOKENS, bool MASK>
  __device__ __forceinline__ void attend(const bf16 *keys, const bf16 *values, int from, int last0,
                                         int last1, float scale) {
    int lane = threadIdx.x % WARP;
    int t = lane % 4;
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
        mma(s[j], q[k], b[0], b[1]);
        mma(s[j + 1], q[k], b[2], b[3]);
      }
    }
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
      s[j][0] = exp2f(s[j][0] - base0);
      s[j][1] = exp2f(s[j][1] - base0);
      s[j][2] = exp2f(s[j][2] - base1);
      s[j][3] = exp2f(s[j][3] - base1);
      sum[0] += s[j][0] + s[j][1];
      sum[1] += s[j][2] + s[j][3];
    }
#pragma unroll
    for (int k = 0; k < TOKENS / 16; k++) {
      // The scores lie as C does; two of them side by side lie as A does.
      uint32_t p[4] = {pack(s[2 * k][0], s[2 * k][1]), pack(s[2 * k][2], s[2 * k][3]),
                       pack(s[2 * k + 1][0], s[2 * k + 1][1]),
                       pack(s[2 * k + 1][2], s[2 * k + 1][3])};
#pragma unroll
      for (int n = 0; n < D / 8; n += 2) {
        uint32_t b[4];
        int token = k * 16 + lane % 16;
        load_transposed(b, values + token * STRIDE<D> + n * 8 + lane / 16 * 8);
        mma(out[n], p, b[0], b[1]);
        mma(out[n + 1], p, b[2], b[3]);
      }
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

// Several query tokens of a sequence. Block (x, y): tile x of KV head y. The tile's rows are
// (token, head of the group), its tokens ROWS / group or what is left of the sequence's query.
constexpr int PREFILL_WARPS = 8;
constexpr int PREFILL_TOKENS = 64;

template <int D>
__device__ void prefill(const bf16 *q, const bf16 *keys, const bf16 *values, bf16 *out,
                        const int *query_start, const int *context_length, const int *block_table,
                        const int *tile_sequence, const int *tile_token, int max_blocks,
                        int kv_heads, int group, int q_stride, int out_stride, float scale) {
  constexpr int ROWS = PREFILL_WARPS * 16;
  constexpr int THREADS = PREFILL_WARPS * WARP;
  constexpr int TILE = PREFILL_TOKENS * STRIDE<D>;
  extern __shared__ __align__(16) bf16 memory[]; // keys, values: [2][PREFILL_TOKENS][STRIDE]
  bf16 *key_tiles = memory;
  bf16 *value_tiles = memory + 2 * TILE;

  int sequence = tile_sequence[blockIdx.x];
  int first = tile_token[blockIdx.x];
  int query = query_start[sequence];
  int length = query_start[sequence + 1] - query;
  int start = context_length[sequence] - length + first; // position of the tile's first token
  int tokens = min(ROWS / group, length - first);
  int end = start + tokens;
  Paged cache = {keys, values, block_table + static_cast<size_t>(sequence) * max_blocks, kv_heads,
                 static_cast<int>(blockIdx.y)};

  int lane = threadIdx.x % WARP;
  int t = lane % 4;
  int row0 = threadIdx.x / WARP * 16 + lane / 4;
  int row1 = row0 + 8;
  int token0 = row0 / group;
  int token1 = row1 / group;
  size_t head0 = static_cast<size_t>(blockIdx.y) * group + row0 % group;
  size_t head1 = static_cast<size_t>(blockIdx.y) * group + row1 % group;
  size_t at0 = static_cast<size_t>(query) + first + token0;
  size_t at1 = static_cast<size_t>(query) + first + token1;
  bool real0 = token0 < tokens;
  bool real1 = token1 < tokens;
  Rows<D> rows;
  rows.begin(real0 ? q + at0 * q_stride + head0 * D : nullptr,
             real1 ? q + at1 * q_stride + head1 * D : nullptr);
  int last0 = min(start + token0, end - 1);
  int last1 = min(start + token1, end - 1);
  int warp_first = start + min(threadIdx.x / WARP * 16 / group, tokens - 1);

  int tiles = (end + PREFILL_TOKENS - 1) / PREFILL_TOKENS;
  fetch<D, PREFILL_TOKENS, THREADS>(cache, 0, end, threadIdx.x, key_tiles, value_tiles);
  commit_copies();
  for (int i = 0; i < tiles; i++) {
    if (i + 1 < tiles) {
      int next = (i + 1) % 2 * TILE;
      fetch<D, PREFILL_TOKENS, THREADS>(cache, (i + 1) * PREFILL_TOKENS, end, threadIdx.x,
                                        key_tiles + next, value_tiles + next);
    }
    commit_copies();
    await_copies<1>();
    __syncthreads();
    int from = i * PREFILL_TOKENS;
    const bf16 *k = key_tiles + i % 2 * TILE;
    const bf16 *v = value_tiles + i % 2 * TILE;
    if (from + PREFILL_TOKENS - 1 <= warp_first) {
      rows.template attend<PREFILL_TOKENS, false>(k, v, from, last0, last1, scale);
    } else {
      rows.template attend<PREFILL_TOKENS, true>(k, v, from, last0, last1, scale);
    }
    __syncthreads();
  }

  float share0 = 1.0f / rows.total(0);
  float share1 = 1.0f / rows.total(1);
#pragma unroll
  for (int n = 0; n < D / 8; n++) {
    int column = n * 8 + 2 * t;
    if (real0) {
      *reinterpret_cast<uint32_t *>(out + at0 * out_stride + head0 * D + column) =
          pack(rows.out[n][0] * share0, rows.out[n][1] * share0);
    }
    if (real1) {
      *reinterpret_cast<uint32_t *>(out + at1 * out_stride + head1 * D + column) =
          pack(rows.out[n][2] * share1, rows.out[n][3] * share1);
    }
  }
}

// One query token of a sequence over a stretch of its context. Block (x, y): item x of KV head
// y / parts and of its group the 16 heads from y % parts * 16 on, where parts = ceil(group / 16).
// Each warp takes every fourth block of the stretch through a pipeline of its own. An item that is
// all of its sequence goes to out, others to partial [item][head][D] and weight
// [item][head], the logarithm (to base 2) of the sum, for merge.
constexpr int DECODE_WARPS = 4;
constexpr int DECODE_STAGES = 3;

template <int D>
__device__ void decode(const bf16 *q, const bf16 *keys, const bf16 *values, bf16 *out,
                       float *partial, float *weight, const int *query_start,
                       const int *context_length, const int *block_table, const int *item_sequence,
                       const int *item_from, const int *item_to, int max_blocks, int kv_heads,
                       int group, int q_stride, int out_stride, float scale) {
  constexpr int TILE = BLOCK_TOKENS * STRIDE<D>;
  extern __shared__ __align__(16) bf16 memory[]; // [warp][stage][keys, values][16][STRIDE]
  __shared__ float tops[DECODE_WARPS][16];
  __shared__ float sums[DECODE_WARPS][16];

  int item = blockIdx.x;
  int sequence = item_sequence[item];
  int from = item_from[item];
  int to = item_to[item];
  int parts = (group + 15) / 16;
  int first_head = blockIdx.y % parts * 16;
  int heads_here = min(16, group - first_head);
  Paged cache = {keys, values, block_table + static_cast<size_t>(sequence) * max_blocks, kv_heads,
                 static_cast<int>(blockIdx.y) / parts};
  size_t head = static_cast<size_t>(cache.kv_head) * group + first_head;
  size_t query = query_start[sequence];

  int warp = threadIdx.x / WARP;
  int lane = threadIdx.x % WARP;
  int g = lane / 4;
  int t = lane % 4;
  bf16 *stages = memory + warp * DECODE_STAGES * 2 * TILE;
  Rows<D> rows;
  const bf16 *heads = q + query * q_stride + head * D;
  rows.begin(g < heads_here ? heads + g * D : nullptr,
             g + 8 < heads_here ? heads + (g + 8) * D : nullptr);

  int step = DECODE_WARPS * BLOCK_TOKENS;
  int next = from + warp * BLOCK_TOKENS;
#pragma unroll
  for (int i = 0; i < DECODE_STAGES - 1; i++) {
    if (next < to) {
      fetch<D, BLOCK_TOKENS, WARP>(cache, next, to, lane, stages + 2 * i * TILE,
                                   stages + (2 * i + 1) * TILE);
    }
    commit_copies();
    next += step;
  }
  int stage = 0;
  for (int at = from + warp * BLOCK_TOKENS; at < to; at += step) {
    int free = (stage + DECODE_STAGES - 1) % DECODE_STAGES;
    if (next < to) {
      fetch<D, BLOCK_TOKENS, WARP>(cache, next, to, lane, stages + 2 * free * TILE,
                                   stages + (2 * free + 1) * TILE);
    }
    commit_copies();
    next += step;
    await_copies<DECODE_STAGES - 1>();
    __syncwarp();
    const bf16 *k = stages + 2 * stage * TILE;
    if (at + BLOCK_TOKENS <= to) {
      rows.template attend<BLOCK_TOKENS, false>(k, k + TILE, at, to - 1, to - 1, scale);
    } else {
      rows.template attend<BLOCK_TOKENS, true>(k, k + TILE, at, to - 1, to - 1, scale);
    }
    __syncwarp();
    stage = (stage + 1) % DECODE_STAGES;
  }
  await_copies<0>();

  // The warps' shares, weighted by their sums.
  float sum0 = rows.total(0);
  float sum1 = rows.total(1);
  if (t == 0) {
    tops[warp][g] = rows.largest[0];
    tops[warp][g + 8] = rows.largest[1];
    sums[warp][g] = sum0;
    sums[warp][g + 8] = sum1;
  }
  __syncthreads(); // the stages are read no more
  float *shares = reinterpret_cast<float *>(memory); // [warp][16][D]
#pragma unroll
  for (int n = 0; n < D / 8; n++) {
    float *share = shares + (warp * 16 + g) * D + n * 8 + 2 * t;
    share[0] = rows.out[n][0];
    share[1] = rows.out[n][1];
    share[8 * D] = rows.out[n][2];
    share[8 * D + 1] = rows.out[n][3];
  }
  __syncthreads();
  bool whole = from == 0 && to == context_length[sequence];
  for (int i = threadIdx.x; i < heads_here * D; i += DECODE_WARPS * WARP) {
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
      value += shares[(w * 16 + row) * D + column] * factor;
    }
    value /= sum;
    if (whole) {
      store(out, query * out_stride + (head + row) * D + column, value);
    } else {
      size_t at = static_cast<size_t>(item) * kv_heads * group + head + row;
      partial[at * D + column] = value;
      if (column == 0) {
        weight[at] = top + log2f(sum);
      }
    }
  }
}

// out = the items of a sequence, weighted by their sums. Block (x, y): sequence x of those with
// several items, head y; a thread a column.
extern "C" __global__ void merge(const float *partial, const float *weight, bf16 *out,
                                 const int *query_start, const int *merge_sequence,
                                 const int *merge_first, const int *merge_count, int heads,
                                 int head_dim, int out_stride) {
  int first = merge_first[blockIdx.x];
  int count = merge_count[blockIdx.x];
  float top = -INFINITY;
  for (int i = 0; i < count; i++) {
    top = fmaxf(top, weight[static_cast<size_t>(first + i) * heads + blockIdx.y]);
  }
  float sum = 0.0f, value = 0.0f;
  for (int i = 0; i < count; i++) {
    size_t at = static_cast<size_t>(first + i) * heads + blockIdx.y;
    float factor = exp2f(weight[at] - top);
    sum += factor;
    value += factor * partial[at * head_dim + threadIdx.x];
  }
  size_t query = query_start[merge_sequence[blockIdx.x]];
  store(out, query * out_stride + static_cast<size_t>(blockIdx.y) * head_dim + threadIdx.x,
        value / sum);
}

#define HEAD_DIM(D)                                                                               \
  extern "C" __global__ void __launch_bounds__(PREFILL_WARPS *WARP) prefill_##D(                  \
      const bf16 *q, const bf16 *keys, const bf16 *values, bf16 *out, const int *query_start,     \
      const int *context_length, const int *block_table, const int *tile_sequence,                \
      const int *tile_token, int max_blocks, int kv_heads, int group, int q_stride,               \
      int out_stride, float scale) {                                                              \
    prefill<D>(q, keys, values, out, query_start, context_length, block_table, tile_sequence,     \
               tile_token, max_blocks, kv_heads, group, q_stride, out_stride, scale);             \
  }                                                                                               \
  extern "C" __global__ void __launch_bounds__(DECODE_WARPS *WARP) decode_##D(                    \
      const bf16 *q, const bf16 *keys, const bf16 *values, bf16 *out, float *partial,             \
      float *weight, const int *query_start, const int *context_length, const int *block_table,   \
      const int *item_sequence, const int *item_from, const int *item_to, int max_blocks,         \
      int kv_heads, int group, int q_stride, int out_stride, float scale) {                       \
    decode<D>(q, keys, values, out, partial, weight, query_start, context_length, block_table,    \
              item_sequence, item_from, item_to, max_blocks, kv_heads, group, q_stride,           \
              out_stride, scale);                                                                 \
  }

HEAD_DIM(16)
HEAD_DIM(32)
HEAD_DIM(48)
HEAD_DIM(64)
HEAD_DIM(96)
HEAD_DIM(128)
