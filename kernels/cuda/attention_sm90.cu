// Attention of several query tokens of a sequence, for Hopper: what prefill of attention.cu and
// attention_fp8.cu does, by products of warpgroups. Other chips have nothing of this file.
//
// A block has three warpgroups. One brings tiles of keys and values to shared memory; two have 64
// rows each. While one of these takes the softmax of its scores the other's products run: they
// begin products in turns, as in FlashAttention-3 (Shah et al., 2024), and each begins the products
// of the next tile's scores before it sums the values of the tile before.
//
// A row's result does not depend on which rows are beside it: tiles of keys begin at multiples of
// KEYS, and positions that a row does not see change neither its sum nor its values by a bit.
//
// Keys and values of e4m3 become halves either on the way, by warps of each block, or all at once
// before, in memory that the copy engine then reads (widen_blocks of attention_fp8.cu), which pays
// where many rows read them. What is multiplied and in which order is the same, so results are too,
// to the bit.

#include "fp8.cuh"
#include "overlap.cuh"
#include "prefill_sm90.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

constexpr int STAGES = 2;

template <int D>
struct Memory {
  static constexpr int LINES = D * 2 / LINE_BYTES; // of a row
  static constexpr int EIGHT = LINES * BOX_BYTES;  // bytes of eight rows
  static constexpr int TILE = KEYS / 8 * EIGHT;
  uint8_t queries[SIDES][ROWS_EACH / 8 * EIGHT];
  uint8_t keys[STAGES][TILE];
  uint8_t values[STAGES][TILE];
  Gate keys_here[STAGES];
  Gate keys_read[STAGES];
  Gate values_here[STAGES];
  Gate values_read[STAGES];
  Gate last_values; // of a last tile that has to be cleared at its end
};

// Brings what needs no change: the copy engine does, a block of the cache at a time, for one warp.
// WIDENED: halves that widen_blocks made, where a sequence's blocks follow one another from blocks[0]
// on; else bf16 of the cache.
template <int D, bool WIDENED>
struct Engine {
  static constexpr int WARPS = 1;
  static constexpr bool HALF = WIDENED;
  static constexpr int OWN_REGISTERS = 24;
  static constexpr int ROWS_REGISTERS = 240;
  const TensorMap &keys;
  const TensorMap &values;

  __device__ __forceinline__ void bring(const TensorMap &map, uint8_t *to, const QueryTile &tile,
                                        int kv_heads, int from, Gate &here) const {
    constexpr int BLOCK_BYTES = BLOCK_TOKENS / 8 * Memory<D>::EIGHT;
    if (threadIdx.x == 0) {
      arrive_expecting(&here, Memory<D>::TILE);
    }
    __syncwarp();
    if (threadIdx.x < KEYS / BLOCK_TOKENS) {
      int position = from + threadIdx.x * BLOCK_TOKENS;
      // In eights of rows; what lies outside of the tensor comes as zeros.
      int at = -(BLOCK_TOKENS / 8);
      if (position < tile.end) {
        int index = position / BLOCK_TOKENS;
        int block = WIDENED ? tile.blocks[0] + index : tile.blocks[index];
        at = (block * kv_heads + tile.kv_head) * (BLOCK_TOKENS / 8);
      }
      copy_box(to + threadIdx.x * BLOCK_BYTES, map, at, here);
    }
  }

  __device__ __forceinline__ void bring_values(Memory<D> &memory, Stage<STAGES> stage,
                                               const QueryTile &tile, int kv_heads,
                                               int from) const {
    uint8_t *to = memory.values[stage.at];
    Gate &here = memory.values_here[stage.at];
    if (from + KEYS <= tile.end || tile.end % BLOCK_TOKENS == 0) {
      bring(values, to, tile, kv_heads, from, here);
      return;
    }
    // What an earlier sequence left in the last block may be anything, and 0 times infinity is no
    // number, so it is cleared.
    bring(values, to, tile, kv_heads, from, memory.last_values);
    await(&memory.last_values, 0);
    for (int row = tile.end - from; row % BLOCK_TOKENS != 0; row++) {
      for (int line = 0; line < Memory<D>::LINES; line++) {
        uint8_t *box = to + (row / 8 * Memory<D>::LINES + line) * BOX_BYTES;
        reinterpret_cast<uint32_t *>(box + row % 8 * LINE_BYTES)[threadIdx.x] = 0;
      }
    }
    publish_to_products();
    __syncwarp();
    if (threadIdx.x == 0) {
      arrive(&here);
    }
  }

  __device__ __forceinline__ void run(Memory<D> &memory, const QueryTile &tile, int kv_heads,
                                      int tiles) const {
    Stage<STAGES> k, v;
    for (int i = 0; i <= tiles; i++) {
      if (i < tiles) {
        await(&memory.keys_read[k.at], k.phase ^ 1);
        bring(keys, memory.keys[k.at], tile, kv_heads, i * KEYS, memory.keys_here[k.at]);
        k.next();
      }
      if (i > 0) {
        await(&memory.values_read[v.at], v.phase ^ 1);
        bring_values(memory, v, tile, kv_heads, (i - 1) * KEYS);
        v.next();
      }
    }
  }
};

// Brings e4m3: four warps, which widen it to halves. Each thread has what is next under way while
// it widens what has come.
template <int D>
struct Widener {
  static constexpr int WARPS = 4;
  static constexpr bool HALF = true;
  static constexpr int OWN_REGISTERS = 104;
  static constexpr int ROWS_REGISTERS = 200;
  static constexpr int PARTS = D / PART_BYTES;      // of a row
  static constexpr int AT_ONCE = WARPGROUP / PARTS; // rows
  static constexpr int EACH = KEYS / AT_ONCE;       // parts of a thread
  const e4m3 *keys;
  const e4m3 *values;

  __device__ __forceinline__ void ask(uint4 (&raw)[EACH], const e4m3 *cache, const QueryTile &tile,
                                      int kv_heads, int from) const {
    int row = from + threadIdx.x / PARTS;
    int last = tile.end - 1;
    int block[EACH];
#pragma unroll
    for (int i = 0; i < EACH; i++) {
      block[i] = tile.blocks[min(row + i * AT_ONCE, last) / BLOCK_TOKENS];
    }
#pragma unroll
    for (int i = 0; i < EACH; i++) {
      size_t head = static_cast<size_t>(block[i]) * kv_heads + tile.kv_head;
      size_t token = head * BLOCK_TOKENS + min(row + i * AT_ONCE, last) % BLOCK_TOKENS;
      raw[i] = __ldg(reinterpret_cast<const uint4 *>(cache + token * D) + threadIdx.x % PARTS);
    }
  }

  // Of positions `from` on, those from `end` on as zeros: attention.cuh says why.
  __device__ __forceinline__ void widen(const uint4 (&raw)[EACH], uint8_t *to, int from, int end,
                                        Gate &here) const {
    int part = threadIdx.x % PARTS;
    int there = end - from - static_cast<int>(threadIdx.x) / PARTS;
#pragma unroll
    for (int i = 0; i < EACH; i++) {
      uint4 low, high;
      widened(i * AT_ONCE < there ? raw[i] : make_uint4(0, 0, 0, 0), low, high);
      // Eight threads write at once; where they write one row, half of them begin with the second
      // half, else two would meet in each bank.
      int odd = part / 4;
      int row = threadIdx.x / PARTS + i * AT_ONCE;
      *reinterpret_cast<uint4 *>(to + part_place(row, 2 * part + odd, Memory<D>::LINES)) =
          odd ? high : low;
      *reinterpret_cast<uint4 *>(to + part_place(row, 2 * part + 1 - odd, Memory<D>::LINES)) =
          odd ? low : high;
    }
    publish_to_products();
    __syncwarp();
    if (threadIdx.x % WARP == 0) {
      arrive(&here);
    }
  }

  __device__ __forceinline__ void run(Memory<D> &memory, const QueryTile &tile, int kv_heads,
                                      int tiles) const {
    Stage<STAGES> k, v;
    uint4 next_keys[EACH], next_values[EACH];
    ask(next_keys, keys, tile, kv_heads, 0);
    for (int i = 0; i <= tiles; i++) {
      if (i > 0) {
        ask(next_values, values, tile, kv_heads, (i - 1) * KEYS);
      }
      if (i < tiles) {
        await(&memory.keys_read[k.at], k.phase ^ 1);
        widen(next_keys, memory.keys[k.at], i * KEYS, tile.end, memory.keys_here[k.at]);
        k.next();
      }
      if (i + 1 < tiles) {
        ask(next_keys, keys, tile, kv_heads, (i + 1) * KEYS);
      }
      if (i > 0) {
        await(&memory.values_read[v.at], v.phase ^ 1);
        widen(next_values, memory.values[v.at], (i - 1) * KEYS, tile.end,
              memory.values_here[v.at]);
        v.next();
      }
    }
  }
};

// Scores of a side's rows and a tile's keys, begun.
template <int D, bool HALF>
__device__ __forceinline__ void begin_scores(float (&s)[KEYS / 2], const uint8_t *queries,
                                             const uint8_t *keys) {
  constexpr int EIGHT = Memory<D>::EIGHT;
  uint64_t a = descriptor(queries, 0, EIGHT);
  uint64_t b = descriptor(keys, 0, EIGHT);
#pragma unroll
  for (int k = 0; k < D / 16; k++) {
    // Four steps of 32 bytes in a line; descriptors count in 16.
    uint64_t step = (k / 4 * BOX_BYTES + k % 4 * 32) >> 4;
    if (k == 0) {
      multiply_rows<HALF, false>(s, a, b);
    } else {
      multiply_rows<HALF, true>(s, a + step, b + step);
    }
  }
}

// Sums of a tile's values, weighted, begun.
template <int D, bool HALF>
__device__ __forceinline__ void begin_sums(float (&out)[D / 2], const uint32_t (&p)[KEYS / 4],
                                           const uint8_t *values) {
  constexpr int EIGHT = Memory<D>::EIGHT;
  uint64_t b = descriptor(values, BOX_BYTES, EIGHT);
#pragma unroll
  for (int k = 0; k < KEYS / 16; k++) {
    multiply_columns<HALF>(out, p + 4 * k, b + (k * 2 * EIGHT >> 4));
  }
}

// Scores lie as C does; 16 columns of them lie as A does.
template <bool HALF>
__device__ __forceinline__ void pack_weights(uint32_t (&p)[KEYS / 4], const float (&s)[KEYS / 2]) {
#pragma unroll
  for (int i = 0; i < KEYS / 4; i++) {
    p[i] = packed<HALF>(s[2 * i], s[2 * i + 1]);
  }
}

// A side's queries to shared memory, rows that are not real as zeros.
template <int D, bool HALF>
__device__ __forceinline__ void bring_queries(uint8_t *to, const bf16 *q, const QueryTile &tile,
                                              int first_row, int thread, int q_stride) {
  constexpr int PARTS = D / VECTOR;
#pragma unroll
  for (int i = 0; i < ROWS_EACH * PARTS / WARPGROUP; i++) {
    int unit = thread + i * WARPGROUP;
    int row = unit / PARTS;
    int part = unit % PARTS;
    uint4 numbers = make_uint4(0, 0, 0, 0);
    if (tile.real(first_row + row)) {
      const bf16 *from = q + tile.place<D>(first_row + row, q_stride) + part * VECTOR;
      if constexpr (HALF) {
        float v[VECTOR];
        load8(from, v);
        numbers = make_uint4(pack_half(v[0], v[1]), pack_half(v[2], v[3]), pack_half(v[4], v[5]),
                             pack_half(v[6], v[7]));
      } else {
        numbers = *reinterpret_cast<const uint4 *>(from);
      }
    }
    *reinterpret_cast<uint4 *>(to + part_place(row, part, Memory<D>::LINES)) = numbers;
  }
}

// The softmax of two rows on the way, g and g + 8 of a warp's 16: a thread's share. Unlike Sums its
// largest scores are not yet times scale.
struct Softmax {
  float top[2];
  float sum[2]; // of this thread's columns alone

  // From products to weights, of positions `from` on; row r sees those up to last[r], and its
  // products are times scale. Returns what was summed before is to be multiplied by.
  template <bool FIRST>
  __device__ __forceinline__ float2 weigh(float (&s)[KEYS / 2], int from, const int (&last)[2],
                                          int warp_first, float scale) {
    hide(s, from, last, warp_first);
    float shrink[2];
#pragma unroll
    for (int r = 0; r < 2; r++) {
      float most = largest(s, r);
      float before = top[r];
      // Position 0 is in the first tile, and all rows see it.
      top[r] = FIRST ? most : fmaxf(before, most);
      float base = top[r] * scale;
      shrink[r] = FIRST ? 0.0f : power_of_two((before - top[r]) * scale);
      float more = 0.0f;
#pragma unroll
      for (int i = 0; i < KEYS / 8; i++) {
        float &low = s[4 * i + 2 * r];
        float &high = s[4 * i + 2 * r + 1];
        low = power_of_two(fmaf(low, scale, -base));
        high = power_of_two(fmaf(high, scale, -base));
        more += low + high;
      }
      sum[r] = FIRST ? more : fmaf(sum[r], shrink[r], more);
    }
    return make_float2(shrink[0], shrink[1]);
  }

  __device__ __forceinline__ float total(int row) const {
    float all = sum[row];
    all += __shfl_xor_sync(ALL, all, 1);
    all += __shfl_xor_sync(ALL, all, 2);
    return all;
  }
};

// What a side does. thread: of the side.
template <int D, bool HALF>
__device__ __forceinline__ void attend(Memory<D> &memory, const QueryTile &tile, int side,
                                       int thread, int tiles, const bf16 *q, bf16 *out,
                                       int q_stride, int out_stride, float scale, float factor) {
  int first_row = side * ROWS_EACH;
  bring_queries<D, HALF>(memory.queries[side], q, tile, first_row, thread, q_stride);
  publish_to_products();
  sync_named(OWN + side, WARPGROUP);

  int warp_row = first_row + thread / WARP * 16;
  int rows[2] = {warp_row + thread % WARP / 4, warp_row + thread % WARP / 4 + 8};
  int last[2] = {tile.last(rows[0]), tile.last(rows[1])};
  int warp_first = tile.last(warp_row);
  bool speaker = thread % WARP == 0;
  Softmax softmax;
  float s[KEYS / 2];
  float sums[D / 2];
  uint32_t p[KEYS / 4];
#pragma unroll
  for (int i = 0; i < D / 2; i++) {
    sums[i] = 0.0f;
  }

  Stage<STAGES> keys, values;
  await(&memory.keys_here[0], 0);
  hold(s);
  begin_products();
  begin_scores<D, HALF>(s, memory.queries[side], memory.keys[0]);
  commit_products();
  await_products<0>();
  hold(s);
  if (speaker) {
    arrive(&memory.keys_read[0]);
  }
  keys.next();
  softmax.weigh<true>(s, 0, last, warp_first, scale);
  pack_weights<HALF>(p, s);
  if (side == 1 && tiles > 1) {
    arrive_named(TURN, SIDES * WARPGROUP); // the first turn is side 0's
  }
  for (int i = 1; i < tiles; i++) {
    await(&memory.keys_here[keys.at], keys.phase);
    sync_named(TURN + side, SIDES * WARPGROUP);
    hold(s);
    hold(sums);
    begin_products();
    begin_scores<D, HALF>(s, memory.queries[side], memory.keys[keys.at]);
    commit_products();
    await(&memory.values_here[values.at], values.phase);
    begin_products();
    begin_sums<D, HALF>(sums, p, memory.values[values.at]);
    commit_products();
    if (side == 0 || i + 1 < tiles) {
      arrive_named(TURN + 1 - side, SIDES * WARPGROUP);
    }
    await_products<1>();
    hold(s);
    if (speaker) {
      arrive(&memory.keys_read[keys.at]);
    }
    float2 shrink = softmax.weigh<false>(s, i * KEYS, last, warp_first, scale);
    await_products<0>();
    hold(sums);
    if (speaker) {
      arrive(&memory.values_read[values.at]);
    }
    keys.next();
    values.next();
#pragma unroll
    for (int j = 0; j < D / 2; j++) {
      sums[j] *= j / 2 % 2 == 0 ? shrink.x : shrink.y;
    }
    pack_weights<HALF>(p, s);
  }
  await(&memory.values_here[values.at], values.phase);
  hold(sums);
  begin_products();
  begin_sums<D, HALF>(sums, p, memory.values[values.at]);
  commit_products();
  await_products<0>();
  hold(sums);

#pragma unroll
  for (int r = 0; r < 2; r++) {
    float share = factor / softmax.total(r);
    if (tile.real(rows[r])) {
      bf16 *to = out + tile.place<D>(rows[r], out_stride) + 2 * (thread % 4);
#pragma unroll
      for (int n = 0; n < D / 8; n++) {
        *reinterpret_cast<uint32_t *>(to + n * 8) =
            pack(sums[4 * n + 2 * r] * share, sums[4 * n + 2 * r + 1] * share);
      }
    }
  }
}

template <int D, typename Source>
__device__ __forceinline__ void prefill(uint8_t *shared, const Source &source,
                                        const QueryTile &tile, int kv_heads, const bf16 *q,
                                        bf16 *out, int q_stride, int out_stride, float scale,
                                        float factor) {
  if (tile.tokens == 0) {
    return; // a graph's grid has room for the most
  }
  Memory<D> &memory = *reinterpret_cast<Memory<D> *>(shared);
  if (threadIdx.x == 0) {
    for (int i = 0; i < STAGES; i++) {
      make_gate(&memory.keys_here[i], Source::WARPS);
      make_gate(&memory.values_here[i], Source::WARPS);
      make_gate(&memory.keys_read[i], SIDES * WARPGROUP / WARP);
      make_gate(&memory.values_read[i], SIDES * WARPGROUP / WARP);
    }
    make_gate(&memory.last_values, 1);
    gates_made();
  }
  __syncthreads();
  int tiles = (tile.end + KEYS - 1) / KEYS;
  int warpgroup = __shfl_sync(ALL, threadIdx.x / WARPGROUP, 0); // so that it is seen to be a warp's
  if (warpgroup == 0) {
    give_registers<Source::OWN_REGISTERS>();
    if (threadIdx.x < Source::WARPS * WARP) {
      source.run(memory, tile, kv_heads, tiles);
    }
  } else {
    take_registers<Source::ROWS_REGISTERS>();
    int side = warpgroup - 1;
    attend<D, Source::HALF>(memory, tile, side, threadIdx.x % WARPGROUP, tiles, q, out, q_stride,
                            out_stride, scale, factor);
  }
}

// Block x: KV head x % kv_heads of tile x / kv_heads. one: first_block has one column.
#define HEAD_DIM(D)                                                                               \
  extern "C" __global__ void __launch_bounds__(PREFILL_THREADS, 1) prefill_sm90_##D(              \
      const __grid_constant__ TensorMap keys, const __grid_constant__ TensorMap values,           \
      const bf16 *q, bf16 *out, const int *query_start, const int *context_length,                \
      const int *block_table, const int *tile_sequence, const int *tile_token, int max_blocks,    \
      int kv_heads, int group, int q_stride, int out_stride, float scale) {                       \
    extern __shared__ __align__(1024) uint8_t shared[];                                           \
    QueryTile tile(blockIdx.x / kv_heads, blockIdx.x % kv_heads, group, query_start,              \
                   context_length, block_table, tile_sequence, tile_token, max_blocks);           \
    prefill<D>(shared, Engine<D, false>{keys, values}, tile, kv_heads, q, out, q_stride,          \
               out_stride, scale, 1.0f);                                                          \
  }                                                                                               \
  extern "C" __global__ void __launch_bounds__(PREFILL_THREADS, 1) prefill_widened_sm90_##D(      \
      const __grid_constant__ TensorMap keys, const __grid_constant__ TensorMap values,           \
      const bf16 *q, bf16 *out, const int *query_start, const int *context_length,                \
      const int *first_block, const int *tile_sequence, const int *tile_token, int one,           \
      int kv_heads, int group, int q_stride, int out_stride, float scale, float factor) {         \
    await_previous();                                                                             \
    extern __shared__ __align__(1024) uint8_t shared[];                                           \
    QueryTile tile(blockIdx.x / kv_heads, blockIdx.x % kv_heads, group, query_start,              \
                   context_length, first_block, tile_sequence, tile_token, one);                  \
    prefill<D>(shared, Engine<D, true>{keys, values}, tile, kv_heads, q, out, q_stride,           \
               out_stride, scale, factor);                                                        \
  }                                                                                               \
  extern "C" __global__ void __launch_bounds__(PREFILL_THREADS, 1) prefill_fp8_sm90_##D(          \
      const e4m3 *keys, const e4m3 *values, const bf16 *q, bf16 *out, const int *query_start,     \
      const int *context_length, const int *block_table, const int *tile_sequence,                \
      const int *tile_token, int max_blocks, int kv_heads, int group, int q_stride,               \
      int out_stride, float scale, float factor) {                                                \
    extern __shared__ __align__(1024) uint8_t shared[];                                           \
    QueryTile tile(blockIdx.x / kv_heads, blockIdx.x % kv_heads, group, query_start,              \
                   context_length, block_table, tile_sequence, tile_token, max_blocks);           \
    prefill<D>(shared, Widener<D>{keys, values}, tile, kv_heads, q, out, q_stride, out_stride,    \
               scale, factor);                                                                    \
  }

HEAD_DIM(64)
HEAD_DIM(128)

#endif
