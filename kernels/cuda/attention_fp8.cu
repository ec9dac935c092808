// Attention over the paged cache: softmax(q * K^T / sqrt(headDim)) * V, of e4m3 keys and values.
//
// Numbers of e4m3 are IEEE halves too, exactly, so halves are what is multiplied, and sums are
// float: nothing is lost but what the cache itself rounds. Queries and weights become halves, which
// hold more digits than bf16; a query above 65504 would become infinite.

#include "decode.cuh"

// Blocks of a decode that run at once on a multiprocessor of Hopper.
constexpr int DECODE_BLOCKS = 4;

// Several query tokens of a sequence, as in attention.cu. A tile of keys and values comes as it is,
// and all warps widen it together, each of which then reads all of it.
constexpr int PREFILL_WARPS = 8;
constexpr int PREFILL_TOKENS = 64;

template <int D>
__device__ __forceinline__ void widen(const e4m3 *from, bf16 *to) {
  constexpr int PARTS = D / PART_BYTES;
#pragma unroll
  for (int unit = threadIdx.x; unit < PREFILL_TOKENS * PARTS; unit += PREFILL_WARPS * WARP) {
    int token = unit / PARTS;
    int part = unit % PARTS * PART_BYTES;
    uint4 raw = *reinterpret_cast<const uint4 *>(from + token * STRIDE<D, e4m3> + part);
    uint4 *out = reinterpret_cast<uint4 *>(to + token * STRIDE<D> + part);
    uint4 low, high;
    widened(raw, low, high);
    out[0] = low;
    out[1] = high;
  }
}

// memory: halves of keys and values, each [PREFILL_TOKENS][STRIDE]; then as they are, [2][keys,
// values].
template <int D>
__device__ void prefill(bf16 *memory, const bf16 *q, const e4m3 *keys, const e4m3 *values, bf16 *out,
                        const int *query_start, const int *context_length, const int *block_table,
                        const int *tile_sequence, const int *tile_token, int max_blocks,
                        int kv_heads, int group, int q_stride, int out_stride, float scale,
                        float factor) {
  constexpr int ROWS = PREFILL_WARPS * 16;
  constexpr int THREADS = PREFILL_WARPS * WARP;
  constexpr int TILE = PREFILL_TOKENS * STRIDE<D>;
  constexpr int RAW = PREFILL_TOKENS * STRIDE<D, e4m3>;
  bf16 *key_tile = memory;
  bf16 *value_tile = memory + TILE;
  e4m3 *raw = reinterpret_cast<e4m3 *>(memory + 2 * TILE);

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
  Paged<e4m3> cache = {keys, values, block_table + static_cast<size_t>(sequence) * max_blocks,
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
  Rows<D, true> rows;
  rows.begin(real0 ? q + at0 * q_stride + head0 * D : nullptr,
             real1 ? q + at1 * q_stride + head1 * D : nullptr);
  int last0 = min(start + token0, end - 1);
  int last1 = min(start + token1, end - 1);
  int warp_first = start + min(threadIdx.x / WARP * 16 / group, tokens - 1);

  int tiles = (end + PREFILL_TOKENS - 1) / PREFILL_TOKENS;
  fetch<D, PREFILL_TOKENS, THREADS>(cache, 0, end, threadIdx.x, raw, raw + RAW);
  commit_copies();
  for (int i = 0; i < tiles; i++) {
    if (i + 1 < tiles) {
      e4m3 *next = raw + (i + 1) % 2 * 2 * RAW;
      fetch<D, PREFILL_TOKENS, THREADS>(cache, (i + 1) * PREFILL_TOKENS, end, threadIdx.x, next,
                                        next + RAW);
    }
    commit_copies();
    await_copies<1>();
    __syncthreads(); // it has come, and the tiles are read no more
    const e4m3 *come = raw + i % 2 * 2 * RAW;
    widen<D>(come, key_tile);
    widen<D>(come + RAW, value_tile);
    __syncthreads();
    int from = i * PREFILL_TOKENS;
    if (from + PREFILL_TOKENS - 1 <= warp_first) {
      rows.template attend<PREFILL_TOKENS, false>(key_tile, value_tile, from, last0, last1, scale);
    } else {
      rows.template attend<PREFILL_TOKENS, true>(key_tile, value_tile, from, last0, last1, scale);
    }
  }

  float share0 = factor / rows.total(0);
  float share1 = factor / rows.total(1);
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

// For prefill that reads halves, of attention_sm90.cu.

// Of a thread of widen_blocks: what it has under way, each eight numbers, so that a warp reads and
// writes without gaps.
constexpr int WIDEN_THREADS = 256;
constexpr int WIDEN_EACH = 8;

// Block x of the wide keys and values becomes block from[x] of the cache's: y is 0 for keys, 1 for
// values. eights: of numbers of a block.
extern "C" __global__ void __launch_bounds__(WIDEN_THREADS)
    widen_blocks(const uint2 *keys, const uint2 *values, uint4 *wide_keys, uint4 *wide_values,
                const int *from, int eights) {
  admit_next();
  await_previous();
  const uint2 *in =
      (blockIdx.y == 0 ? keys : values) + static_cast<size_t>(from[blockIdx.x]) * eights;
  uint4 *out =
      (blockIdx.y == 0 ? wide_keys : wide_values) + static_cast<size_t>(blockIdx.x) * eights;
  for (int first = threadIdx.x; first < eights; first += WIDEN_THREADS * WIDEN_EACH) {
    uint2 raw[WIDEN_EACH];
#pragma unroll
    for (int i = 0; i < WIDEN_EACH; i++) {
      int at = first + i * WIDEN_THREADS;
      if (at < eights) {
        raw[i] = in[at];
      }
    }
#pragma unroll
    for (int i = 0; i < WIDEN_EACH; i++) {
      int at = first + i * WIDEN_THREADS;
      if (at < eights) {
        out[at] = make_uint4(halves(raw[i].x), halves(raw[i].x >> 16), halves(raw[i].y),
                             halves(raw[i].y >> 16));
      }
    }
  }
}

#define HEAD_DIM(D)                                                                               \
  extern "C" __global__ void __launch_bounds__(PREFILL_WARPS *WARP) prefill_fp8_##D(              \
      const bf16 *q, const e4m3 *keys, const e4m3 *values, bf16 *out, const int *query_start,     \
      const int *context_length, const int *block_table, const int *tile_sequence,                \
      const int *tile_token, int max_blocks, int kv_heads, int group, int q_stride,               \
      int out_stride, float scale, float factor) {                                                \
    extern __shared__ __align__(16) bf16 memory[];                                                \
    prefill<D>(memory, q, keys, values, out, query_start, context_length, block_table,            \
               tile_sequence, tile_token, max_blocks, kv_heads, group, q_stride, out_stride,      \
               scale, factor);                                                                    \
  }

// Up to eight query heads a KV head, or parts of 16 (TILES 2). stages: 2 or 3.
#define DECODE(NAME, D, TILES)                                                                    \
  extern "C" __global__ void __launch_bounds__(DECODE_WARPS *WARP, DECODE_BLOCKS) NAME(           \
      const bf16 *q, const e4m3 *keys, const e4m3 *values, bf16 *out, float *partial,             \
      float *weight, const int *query_start, const int *context_length, const int *block_table,   \
      const int *item_sequence, const int *item_from, const int *item_to, int max_blocks,         \
      int kv_heads, int group, int q_stride, int out_stride, float scale, float factor,           \
      int stages) {                                                                               \
    extern __shared__ __align__(16) bf16 memory[];                                                \
    decode_in<D, e4m3, TILES>(stages, memory, q, keys, values, out, partial, weight, query_start, \
                            context_length, block_table, item_sequence, item_from, item_to,       \
                            max_blocks, kv_heads, group, q_stride, out_stride, scale, factor);    \
  }

HEAD_DIM(16)
HEAD_DIM(32)
HEAD_DIM(48)
HEAD_DIM(64)
HEAD_DIM(96)
HEAD_DIM(128)
DECODE(decode_fp8_16, 16, 1)
DECODE(decode_fp8_16_16, 16, 2)
DECODE(decode_fp8_32, 32, 1)
DECODE(decode_fp8_32_16, 32, 2)
DECODE(decode_fp8_48, 48, 1)
DECODE(decode_fp8_48_16, 48, 2)
DECODE(decode_fp8_64, 64, 1)
DECODE(decode_fp8_64_16, 64, 2)
DECODE(decode_fp8_96, 96, 1)
DECODE(decode_fp8_96_16, 96, 2)
DECODE(decode_fp8_128, 128, 1)
DECODE(decode_fp8_128_16, 128, 2)
