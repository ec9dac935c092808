// Attention over the paged cache: softmax(q * K^T / sqrt(headDim)) * V, of bf16 keys and values.

#include "decode.cuh"

// Several query tokens of a sequence. Block (x, y): tile x of KV head y. The tile's rows are
// (token, head of the group), its tokens ROWS / group or what is left of the sequence's query.
constexpr int PREFILL_WARPS = 8;
constexpr int PREFILL_TOKENS = 64;

// memory: keys, values: [2][PREFILL_TOKENS][STRIDE].
template <int D>
__device__ void prefill(bf16 *memory, const bf16 *q, const bf16 *keys, const bf16 *values, bf16 *out,
                        const int *query_start, const int *context_length, const int *block_table,
                        const int *tile_sequence, const int *tile_token, int max_blocks,
                        int kv_heads, int group, int q_stride, int out_stride, float scale) {
  constexpr int ROWS = PREFILL_WARPS * 16;
  constexpr int THREADS = PREFILL_WARPS * WARP;
  constexpr int TILE = PREFILL_TOKENS * STRIDE<D>;
  bf16 *key_tiles = memory;
  bf16 *value_tiles = memory + 2 * TILE;

  int sequence = tile_sequence[blockIdx.x];
  int first = tile_token[blockIdx.x];
  if (first < 0) {
    return; // no tile: a graph's grid has room for the most
  }
  int query = query_start[sequence];
  int length = query_start[sequence + 1] - query;
  int start = context_length[sequence] - length + first; // position of the tile's first token
  int tokens = min(ROWS / group, length - first);
  int end = start + tokens;
  Paged<bf16> cache = {keys, values, block_table + static_cast<size_t>(sequence) * max_blocks,
                       kv_heads, static_cast<int>(blockIdx.y)};

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

// out = the items of a sequence, weighted by their sums. Block (x, y): sequence x of those with
// several items, head y; a thread a column.
extern "C" __global__ void merge(const float *partial, const float *weight, bf16 *out,
                                 const int *query_start, const int *merge_sequence,
                                 const int *merge_first, const int *merge_count, int heads,
                                 int head_dim, int out_stride) {
  admit_next();
  await_previous();
  int first = merge_first[blockIdx.x];
  int count = merge_count[blockIdx.x];
  if (count == 0) {
    return; // a graph's grid has room for the most
  }
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
    extern __shared__ __align__(16) bf16 memory[];                                                \
    prefill<D>(memory, q, keys, values, out, query_start, context_length, block_table,            \
               tile_sequence, tile_token, max_blocks, kv_heads, group, q_stride, out_stride,      \
               scale);                                                                            \
  }

// Up to eight query heads a KV head, or parts of 16 (TILES 2). stages: 2 or 3.
#define DECODE(NAME, D, TILES)                                                                    \
  extern "C" __global__ void __launch_bounds__(DECODE_WARPS *WARP) NAME(                          \
      const bf16 *q, const bf16 *keys, const bf16 *values, bf16 *out, float *partial,             \
      float *weight, const int *query_start, const int *context_length, const int *block_table,   \
      const int *item_sequence, const int *item_from, const int *item_to, int max_blocks,         \
      int kv_heads, int group, int q_stride, int out_stride, float scale,                         \
      int stages) {                                                                               \
    extern __shared__ __align__(16) bf16 memory[];                                                \
    decode_in<D, bf16, TILES>(stages, memory, q, keys, values, out, partial, weight, query_start, \
                            context_length, block_table, item_sequence, item_from, item_to,       \
                            max_blocks, kv_heads, group, q_stride, out_stride, scale, 1.0f);      \
  }

HEAD_DIM(16)
HEAD_DIM(32)
HEAD_DIM(48)
HEAD_DIM(64)
HEAD_DIM(96)
HEAD_DIM(128)
DECODE(decode_16, 16, 1)
DECODE(decode_16_16, 16, 2)
DECODE(decode_32, 32, 1)
DECODE(decode_32_16, 32, 2)
DECODE(decode_48, 48, 1)
DECODE(decode_48_16, 48, 2)
DECODE(decode_64, 64, 1)
DECODE(decode_64_16, 64, 2)
DECODE(decode_96, 96, 1)
DECODE(decode_96_16, 96, 2)
DECODE(decode_128, 128, 1)
DECODE(decode_128_16, 128, 2)
