// Attention of several query tokens of a sequence over an FP8 cache, for Hopper, by products of e4m3:
// attention_sm90.cu's way, where products take half the time. Queries are rounded to e4m3, each row
// by its own largest number, and so are weights, each tile's by a row's largest score in it: so what
// is lost of those that e4m3 has no digits for is less than 2^-11 of a row's, beside whatever other
// tiles hold. Other chips have nothing of this file.
//
// Products of e4m3 want the numbers that they sum over side by side. Keys lie so, and come from the
// cache as they are. Values do not: transpose_values lays a layer's out anew before. It also changes
// the order of positions, so that the weights which a thread has of a product of scores are those
// that it has to hold for the next one; a sum does not depend on it.
//
// The matrix units sum with fewer digits than a float has, so each tile of values is summed for
// itself, and what comes out in floats. Weights are summed there too, as values of one: so they are
// when they are rounded.
//
// As many blocks as run at once take one tile of queries after another. While a block's sides end
// one, queries, keys and values of the next are on their way.

#include "fp8.cuh"
#include "overlap.cuh"
#include "weights_e4m3.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

constexpr int STAGES = 3;
constexpr int TILE = KEYS * D; // bytes, of keys and of values

constexpr uint32_t ONES = 0x38383838;

// What a block computes at a time, as its sides are told of it.
struct Work {
  size_t query; // index of its first token in the batch
  int start;    // and that token's position
  int tokens;
  int kv_head;
  int tiles;  // of keys; 0: there is no more work
  int values; // the first of its tiles of values
};

struct Memory {
  uint8_t queries[SIDES][ROWS_EACH * D];
  uint8_t keys[STAGES][TILE];
  uint8_t values[STAGES][TILE + BOX_BYTES]; // and ones
  bf16 raw[SIDES * ROWS_EACH * D];          // queries as they come
  float query_scales[SIDES][ROWS_EACH];
  Work work[2]; // in turns
  Gate work_here; // and raw
  Gate raw_read;
  Gate keys_here[STAGES];
  Gate keys_read[STAGES];
  Gate values_here[STAGES];
  Gate values_read[STAGES];
};

// A kernel's arguments.
struct Call {
  const uint8_t *values; // tiles
  const bf16 *q;
  bf16 *out;
  const int *query_start;
  const int *context_length;
  const int *block_table;
  const int *first_tile;
  const int *tile_sequence;
  const int *tile_token;
  int *begun;
  int count; // of tiles of queries
  int max_blocks;
  int kv_heads;
  int group;
  int q_stride;
  int out_stride;
  float scale;
  float factor;
};

constexpr uint32_t NO_NUMBERS = 0x7F7F7F7F;

// The highest bit of each of four numbers that is none.
__device__ __forceinline__ uint32_t are_none(uint32_t v) {
  return ((v & NO_NUMBERS) + 0x01010101) & 0x80808080;
}

constexpr int TRANSPOSE_THREADS = KEYS / BLOCK_TOKENS * WARP;

// Block (x, y): of tile value_tile[x] of sequence value_sequence[x] KV head y. A tile becomes as it
// is to lie in shared memory: D rows of KEYS positions. Of 16 positions 8b + 2t + e is at
// 4t + 2b + e. A warp has a block of the cache, a thread four numbers of each position. begun:
// becomes 0.
//
// What a row does not see has a weight of 0, and 0 times no number is no number: so values that are
// none become 0, and their position's key none. That reaches whoever sees the position, and nobody
// else.
extern "C" __global__ void __launch_bounds__(TRANSPOSE_THREADS)
    transpose_values(uint32_t *keys, const uint32_t *values, uint4 *out, const int *context_length,
                     const int *block_table, const int *value_sequence, const int *value_tile,
                     int max_blocks, int *begun) {
  await_previous();
  if (blockIdx.x == 0 && blockIdx.y == 0 && threadIdx.x == 0) {
    *begun = 0;
  }
  __shared__ uint4 turned[TILE / PART_BYTES];
  int sequence = value_sequence[blockIdx.x];
  int warp = threadIdx.x / WARP;
  int lane = threadIdx.x % WARP;
  int block = value_tile[blockIdx.x] * (KEYS / BLOCK_TOKENS) + warp;
  int there = context_length[sequence] - block * BLOCK_TOKENS; // positions
  uint32_t raw[BLOCK_TOKENS];
  size_t head = 0;
  if (there > 0) {
    size_t table = static_cast<size_t>(sequence) * max_blocks;
    head = static_cast<size_t>(block_table[table + block]) * gridDim.y + blockIdx.y;
    const uint32_t *from = values + head * (BLOCK_TOKENS * D / 4) + lane;
#pragma unroll
    for (int i = 0; i < BLOCK_TOKENS; i++) {
      raw[i] = from[i * (D / 4)];
    }
  }
  uint32_t none = 0;
#pragma unroll
  for (int i = 0; i < BLOCK_TOKENS; i++) {
    // What an earlier sequence left there may be anything.
    raw[i] = i < there ? raw[i] : 0;
    none |= are_none(raw[i]);
  }
  if (__any_sync(ALL, none != 0)) {
    uint32_t *to = keys + head * (BLOCK_TOKENS * D / 4) + lane;
#pragma unroll
    for (int i = 0; i < BLOCK_TOKENS; i++) {
      none = are_none(raw[i]);
      raw[i] &= ~((none >> 7) * 0xFF);
      if (__any_sync(ALL, none != 0)) {
        to[i * (D / 4)] = NO_NUMBERS;
      }
    }
  }
  uint32_t columns[4][4];
#pragma unroll
  for (int t = 0; t < 4; t++) {
    uint32_t a = raw[2 * t], b = raw[2 * t + 1], c = raw[8 + 2 * t], d = raw[9 + 2 * t];
    uint32_t ab = __byte_perm(a, b, 0x5140);
    uint32_t cd = __byte_perm(c, d, 0x5140);
    columns[0][t] = __byte_perm(ab, cd, 0x5410);
    columns[1][t] = __byte_perm(ab, cd, 0x7632);
    ab = __byte_perm(a, b, 0x7362);
    cd = __byte_perm(c, d, 0x7362);
    columns[2][t] = __byte_perm(ab, cd, 0x5410);
    columns[3][t] = __byte_perm(ab, cd, 0x7632);
  }
#pragma unroll
  for (int i = 0; i < 4; i++) {
    turned[part_place(4 * lane + i, warp, 1) / PART_BYTES] =
        make_uint4(columns[i][0], columns[i][1], columns[i][2], columns[i][3]);
  }
  __syncthreads();
  size_t tile = static_cast<size_t>(blockIdx.x) * gridDim.y + blockIdx.y;
  uint4 *to = out + tile * (TILE / PART_BYTES);
#pragma unroll
  for (int i = threadIdx.x; i < TILE / PART_BYTES; i += TRANSPOSE_THREADS) {
    to[i] = turned[i];
  }
}

// What a warp does: says what is to be computed, one piece of work after another, and brings its
// queries, and its keys a block of the cache at a time.
__device__ __forceinline__ void bring_keys(Memory &memory, const Call &call, const TensorMap &map) {
  Stage<STAGES> keys;
  int token_numbers = call.group * D; // of the queries that share a KV head
  int token_bytes = token_numbers * static_cast<int>(sizeof(bf16));
  int index = blockIdx.x;
#pragma unroll 1
  for (int turn = 0;; turn++) {
    await(&memory.raw_read, turn % 2 ^ 1);
    if (index >= call.count * call.kv_heads) {
      if (threadIdx.x == 0) {
        memory.work[turn % 2].tiles = 0;
        arrive(&memory.work_here);
      }
      return;
    }
    QueryTile tile(index / call.kv_heads, index % call.kv_heads, call.group, call.query_start,
                   call.context_length, call.block_table, call.tile_sequence, call.tile_token,
                   call.max_blocks);
    int tiles = (tile.end + KEYS - 1) / KEYS;
    if (threadIdx.x == 0) {
      int first = call.first_tile[call.tile_sequence[index / call.kv_heads]];
      memory.work[turn % 2] = {tile.query, tile.start, tile.tokens, tile.kv_head, tiles, first};
      arrive_expecting(&memory.work_here, tile.tokens * token_bytes);
      index = gridDim.x + atomicAdd(call.begun, 1);
    }
    __syncwarp();
#pragma unroll 1
    for (int t = threadIdx.x; t < tile.tokens; t += WARP) {
      copy_bulk_kept(memory.raw + t * token_numbers,
                     call.q + (tile.query + t) * call.q_stride + tile.kv_head * token_numbers,
                     token_bytes, &memory.work_here);
    }
#pragma unroll 1
    for (int i = 0; i < tiles; i++) {
      int block = i * (KEYS / BLOCK_TOKENS) + threadIdx.x;
      // In eights of rows; what lies outside of the tensor comes as zeros.
      int eight = -(BLOCK_TOKENS / 8);
      if (threadIdx.x < KEYS / BLOCK_TOKENS && block * BLOCK_TOKENS < tile.end) {
        eight = (tile.blocks[block] * call.kv_heads + tile.kv_head) * (BLOCK_TOKENS / 8);
      }
      await(&memory.keys_read[keys.at], keys.phase ^ 1);
      if (threadIdx.x == 0) {
        arrive_expecting(&memory.keys_here[keys.at], TILE);
      }
      __syncwarp();
      if (threadIdx.x < KEYS / BLOCK_TOKENS) {
        copy_box(memory.keys[keys.at] + threadIdx.x * (BLOCK_TOKENS * D), map, eight,
                 memory.keys_here[keys.at]);
      }
      keys.next();
    }
    index = __shfl_sync(ALL, index, 0);
  }
}

// What a thread does: brings values, a tile at a time.
__device__ __forceinline__ void bring_values(Memory &memory, const Call &call) {
  Stage<STAGES> values;
#pragma unroll 1
  for (int turn = 0;; turn++) {
    await(&memory.work_here, turn % 2);
    const Work &work = memory.work[turn % 2];
    int tiles = work.tiles;
    if (tiles == 0) {
      return;
    }
    size_t tile = static_cast<size_t>(work.values) * call.kv_heads + work.kv_head;
    const uint8_t *from = call.values + tile * TILE;
    arrive(&memory.raw_read); // work is
#pragma unroll 1
    for (int i = 0; i < tiles; i++) {
      await(&memory.values_read[values.at], values.phase ^ 1);
      arrive_expecting(&memory.values_here[values.at], TILE);
      copy_bulk_kept(memory.values[values.at], from, TILE, &memory.values_here[values.at]);
      from += call.kv_heads * TILE;
      values.next();
    }
  }
}

// A side's queries, rounded; rows that are not real as zeros.
__device__ __forceinline__ void round_queries(Memory &memory, int side, int thread, int rows) {
  constexpr int PARTS = D / VECTOR;
  int part = thread % PARTS;
#pragma unroll
  for (int i = 0; i < ROWS_EACH * PARTS / WARPGROUP; i++) {
    int row = (thread + i * WARPGROUP) / PARTS;
    float v[VECTOR];
    load8(memory.raw + (side * ROWS_EACH + row) * D + part * VECTOR, v);
    float largest = 0.0f;
#pragma unroll
    for (int j = 0; j < VECTOR; j++) {
      v[j] = side * ROWS_EACH + row < rows ? v[j] : 0.0f;
      largest = fmaxf(largest, fabsf(v[j]));
    }
#pragma unroll
    for (int offset = PARTS / 2; offset > 0; offset /= 2) {
      largest = fmaxf(largest, __shfl_xor_sync(ALL, largest, offset));
    }
    float scale = e4m3_scale(largest);
    float share = 1.0f / scale;
#pragma unroll
    for (int j = 0; j < VECTOR; j++) {
      v[j] *= share;
    }
    store8(memory.queries[side] + part_place(row, part / 2, 1) + part % 2 * VECTOR, v);
    if (part == 0) {
      memory.query_scales[side][row] = scale;
    }
  }
}

// Scores of a side's rows and a tile's keys, begun.
__device__ __forceinline__ void begin_scores(float (&s)[KEYS / 2], const uint8_t *queries,
                                             const uint8_t *keys) {
  uint64_t a = descriptor(queries, 0, BOX_BYTES);
  uint64_t b = descriptor(keys, 0, BOX_BYTES);
  multiply_rows_e4m3<false>(s, a, b);
#pragma unroll
  for (int k = 1; k < D / 32; k++) {
    multiply_rows_e4m3<true>(s, a + 2 * k, b + 2 * k); // descriptors count in 16 bytes
  }
}

// Sums of a tile's values, weighted, begun.
__device__ __forceinline__ void begin_sums(float (&part)[SUMS], const uint32_t (&p)[KEYS / 8],
                                           const uint8_t *values) {
  uint64_t b = descriptor(values, 0, BOX_BYTES);
  multiply_columns_e4m3<false>(part, p, b);
#pragma unroll
  for (int k = 1; k < KEYS / 32; k++) {
    multiply_columns_e4m3<true>(part, p + 4 * k, b + 2 * k);
  }
}

// What a side does with one piece of work. thread: of the side.
__device__ __forceinline__ void attend(Memory &memory, const Call &call, const Work &work, int side,
                                       int thread, Stage<STAGES> &keys, Stage<STAGES> &values) {
  sync_named(OWN + side, WARPGROUP); // the queries before are read no more
  round_queries(memory, side, thread, work.tokens * call.group);
  publish_to_products();
  sync_named(OWN + side, WARPGROUP);
  bool speaker = thread % WARP == 0;
  if (speaker) {
    arrive(&memory.raw_read);
  }
  int tiles = work.tiles;
  int end = work.start + work.tokens;
  int own_row = thread / WARP * 16 + thread % WARP / 4;
  int first_row = side * ROWS_EACH;
  int last[2] = {min(work.start + (first_row + own_row) / call.group, end - 1),
                 min(work.start + (first_row + own_row + 8) / call.group, end - 1)};
  int warp_first = min(work.start + (first_row + thread / WARP * 16) / call.group, end - 1);
  float scales[2] = {call.scale * memory.query_scales[side][own_row],
                     call.scale * memory.query_scales[side][own_row + 8]};
  float s[KEYS / 2];
  float sums[SUMS];
  float part[SUMS];
  uint32_t p[KEYS / 8];
#pragma unroll
  for (int i = 0; i < SUMS; i++) {
    sums[i] = 0.0f;
  }

  await(&memory.keys_here[keys.at], keys.phase);
  hold(s);
  begin_products();
  begin_scores(s, memory.queries[side], memory.keys[keys.at]);
  commit_products();
  await_products<0>();
  hold(s);
  if (speaker) {
    arrive(&memory.keys_read[keys.at]);
  }
  keys.next();
  // Position 0 is in the first tile, and all rows see it.
  hide(s, 0, last, warp_first);
  float2 base = weigh(s, scales);
  float2 times = make_float2(1.0f, 1.0f);
  pack_weights(p, s);
  if (tiles > 1) {
    await(&memory.keys_here[keys.at], keys.phase);
  }
  for (int i = 1; i < tiles; i++) {
    hold(s);
    hold(part);
    begin_products();
    begin_scores(s, memory.queries[side], memory.keys[keys.at]);
    commit_products();
    await(&memory.values_here[values.at], values.phase);
    begin_products();
    begin_sums(part, p, memory.values[values.at]);
    commit_products();
    await_products<1>();
    hold(s);
    if (speaker) {
      arrive(&memory.keys_read[keys.at]);
    }
    hide(s, i * KEYS, last, warp_first);
    float2 next = place_beside(base, weigh(s, scales), sums, times);
    keys.next();
    hold(s);
    // Here, for the compiler takes nothing from before a branch to behind it: else it would wait for
    // the sums before it takes the weights that are to be taken beside them.
    if (i + 1 < tiles) {
      await(&memory.keys_here[keys.at], keys.phase);
    }
    await_products<0>();
    hold(part);
    if (speaker) {
      arrive(&memory.values_read[values.at]);
    }
    values.next();
    fold(sums, part, times);
    times = next;
    pack_weights(p, s);
  }
  await(&memory.values_here[values.at], values.phase);
  hold(part);
  begin_products();
  begin_sums(part, p, memory.values[values.at]);
  commit_products();
  await_products<0>();
  hold(part);
  if (speaker) {
    arrive(&memory.values_read[values.at]);
  }
  values.next();
  fold(sums, part, times);

#pragma unroll
  for (int r = 0; r < 2; r++) {
    float share = call.factor / sums[D / 2 + 2 * r];
    int row = first_row + own_row + 8 * r;
    if (row / call.group < work.tokens) {
      size_t head = static_cast<size_t>(work.kv_head) * call.group + row % call.group;
      size_t token = work.query + row / call.group;
      bf16 *to = call.out + token * call.out_stride + head * D + 2 * (thread % 4);
#pragma unroll
      for (int n = 0; n < D / 8; n++) {
        *reinterpret_cast<uint32_t *>(to + n * 8) =
            pack(sums[4 * n + 2 * r] * share, sums[4 * n + 2 * r + 1] * share);
      }
    }
  }
}

// A tile of queries and a KV head are a piece of work: index tile * kv_heads + head. first_tile:
// [sequences], where a sequence's tiles begin among values. begun: 0; counts pieces.
extern "C" __global__ void __launch_bounds__(PREFILL_THREADS, 1)
    prefill_e4m3_sm90(const __grid_constant__ TensorMap keys, const uint8_t *values, const bf16 *q,
                      bf16 *out, const int *query_start, const int *context_length,
                      const int *block_table, const int *first_tile, const int *tile_sequence,
                      const int *tile_token, int *begun, int count, int max_blocks, int kv_heads,
                      int group, int q_stride, int out_stride, float scale, float factor) {
  await_previous();
  extern __shared__ __align__(1024) uint8_t shared[];
  Memory &memory = *reinterpret_cast<Memory *>(shared);
  Call call = {values,        q,          out,   query_start, context_length, block_table,
               first_tile,    tile_sequence, tile_token, begun, count,       max_blocks,
               kv_heads,      group,      q_stride, out_stride, scale,      factor};
  if (threadIdx.x == 0) {
    make_gate(&memory.work_here, 1);
    make_gate(&memory.raw_read, SIDES * WARPGROUP / WARP + 1);
    for (int i = 0; i < STAGES; i++) {
      make_gate(&memory.keys_here[i], 1);
      make_gate(&memory.values_here[i], 1);
      make_gate(&memory.keys_read[i], SIDES * WARPGROUP / WARP);
      make_gate(&memory.values_read[i], SIDES * WARPGROUP / WARP);
    }
    gates_made();
  }
  for (int i = threadIdx.x; i < STAGES * BOX_BYTES / 4; i += PREFILL_THREADS) {
    uint8_t *box = memory.values[i / (BOX_BYTES / 4)] + TILE;
    reinterpret_cast<uint32_t *>(box)[i % (BOX_BYTES / 4)] = ONES;
  }
  publish_to_products();
  __syncthreads();
  int warpgroup = __shfl_sync(ALL, threadIdx.x / WARPGROUP, 0); // so that it is seen to be a warp's
  if (warpgroup == 0) {
    give_registers<24>();
    if (threadIdx.x < WARP) {
      bring_keys(memory, call, keys);
    } else if (threadIdx.x == WARP) {
      bring_values(memory, call);
    }
  } else {
    take_registers<240>();
    Stage<STAGES> keys_stage, values_stage;
    for (int turn = 0;; turn++) {
      await(&memory.work_here, turn % 2);
      const Work &work = memory.work[turn % 2];
      if (work.tiles == 0) {
        break;
      }
      attend(memory, call, work, warpgroup - 1, threadIdx.x % WARPGROUP, keys_stage, values_stage);
    }
  }
}

#endif
