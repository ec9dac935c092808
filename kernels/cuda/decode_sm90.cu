// Attention of one query token of a sequence over a paged cache of e4m3 whose heads have 128 numbers,
// on Hopper: as decode.cuh, but a block of the cache, 2 KB of keys and 2 KB of values that each lie
// in one piece, comes by two copies in bulk, which the L2 cache need not keep. Memory gives more so
// than to copies by threads.

#include "bulk.cuh"
#include "decode.cuh"

#ifdef BULK_COPIES

constexpr int HEAD = 128;
constexpr int TILE = BLOCK_TOKENS * HEAD; // bytes of a block's keys, and of its values

// Blocks of the cache that a warp has on their way or in memory: 48 KB of each block of the grid, which
// is nearly what memory needs to be busy.
constexpr int STAGES = 3;

// Blocks of a decode that run at once on a multiprocessor.
constexpr int DECODE_BLOCKS = 4;

// What a warp holds of up to eight query heads.
//
// Rows lie 128 bytes apart in shared memory, all on the same banks, where ldmatrix would read one at
// a time. So threads load numbers themselves, several that follow one another, and which number of a
// head is called which in a product is chosen to fit. With g = lane / 4 and t = lane % 4 a thread has
//   of keys numbers 16t to 16t + 15 of each half, as numbers 2t, 2t + 1, 2t + 8 and 2t + 9 of four
//   products;
//   of values numbers 16g to 16g + 15, as rows g and g + 8 of eight products.
struct BulkColumns : Columns<HEAD, e4m3, 1> {
  static constexpr int STEPS = HEAD / 16;

  // As they are: of keys rows g and g + 8, a half each; of values positions 2t, 2t + 1, 2t + 8 and
  // 2t + 9.
  uint4 key[2][2];
  uint32_t value[4][4];

  static __device__ __forceinline__ int kept_at(int number) {
    return number / 2 % STEPS * 16 + number / 16 * 2 + number % 2;
  }

  // heads: so many queries, one behind another.
  __device__ __forceinline__ void begin(const bf16 *heads, int count) {
    int lane = threadIdx.x % WARP;
    const bf16 *query = heads + lane / 4 * HEAD + lane % 4 * 16;
#pragma unroll
    for (int k = 0; k < STEPS; k += 2) {
      // Eight numbers that follow one another are those of two products.
      uint4 raw = make_uint4(0, 0, 0, 0);
      if (lane / 4 < count) {
        raw = *reinterpret_cast<const uint4 *>(query + k / 4 * (HEAD / 2) + k % 4 * 4);
      }
#pragma unroll
      for (int j = 0; j < 4; j++) {
        uint32_t pair = word(raw, j);
        float2 two = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162 *>(&pair));
        q[k + j / 2][0][j % 2] = pack_half(two.x, two.y);
      }
    }
    clear();
  }

  // Rows that are read at once lie on the same banks: even ones begin with their first half, odd ones
  // with their second.
  __device__ __forceinline__ void load_keys(const uint8_t *keys) {
    int lane = threadIdx.x % WARP;
    bool odd = lane / 4 % 2 == 1;
    const uint8_t *from = keys + lane / 4 * HEAD + lane % 4 * 16;
#pragma unroll
    for (int j = 0; j < 2; j++) {
      const uint8_t *row = from + j * 8 * HEAD;
      uint4 one = *reinterpret_cast<const uint4 *>(row + (odd ? HEAD / 2 : 0));
      uint4 other = *reinterpret_cast<const uint4 *>(row + (odd ? 0 : HEAD / 2));
      key[j][0] = odd ? other : one;
      key[j][1] = odd ? one : other;
    }
  }

  // Likewise, eight bytes at a time: two threads still meet on each bank.
  __device__ __forceinline__ void load_values(const uint8_t *values) {
    int lane = threadIdx.x % WARP;
    bool odd = lane % 2 == 1;
    const uint8_t *from = values + lane % 4 * 2 * HEAD + lane / 4 * 16;
#pragma unroll
    for (int j = 0; j < 4; j++) {
      const uint8_t *row = from + (j % 2 + j / 2 * 8) * HEAD;
      uint2 one = *reinterpret_cast<const uint2 *>(row + (odd ? 8 : 0));
      uint2 other = *reinterpret_cast<const uint2 *>(row + (odd ? 0 : 8));
      value[j][0] = odd ? other.x : one.x;
      value[j][1] = odd ? other.y : one.y;
      value[j][2] = odd ? one.x : other.x;
      value[j][3] = odd ? one.y : other.y;
    }
  }

  // What lies behind `count` positions came with an earlier block or never, and may be no number: 0
  // times that is none.
  __device__ __forceinline__ void cut_values(int count) {
    int first = threadIdx.x % 4 * 2;
#pragma unroll
    for (int j = 0; j < 4; j++) {
      if (first + j % 2 + j / 2 * 8 >= count) {
        value[j][0] = value[j][1] = value[j][2] = value[j][3] = 0;
      }
    }
  }

  __device__ __forceinline__ void scores(float (&s)[1][4]) {
    // Two sums, since products of one wait for each other.
    float other[1][4] = {};
#pragma unroll
    for (int k = 0; k < STEPS / 2; k++) {
      add_scores(s, k);
      add_scores(other, k + STEPS / 2);
    }
#pragma unroll
    for (int j = 0; j < 4; j++) {
      s[0][j] += other[0][j];
    }
  }

  __device__ __forceinline__ void add_scores(float (&s)[1][4], int k) {
    uint32_t a[4];
    widen(word(key[0][k / 4], k % 4), a[0], a[2]);
    widen(word(key[1][k / 4], k % 4), a[1], a[3]);
    multiply_all(s, {a[0], a[1], a[2], a[3]}, q[k]);
  }

  __device__ __forceinline__ void take(const uint32_t (&p)[1][2]) {
#pragma unroll
    for (int k = 0; k < STEPS; k++) {
      unsigned two = k % 2 == 0 ? 0x5140 : 0x7362; // numbers, of two positions each
      uint32_t a[4];
      widen(__byte_perm(value[0][k / 2], value[1][k / 2], two), a[0], a[1]);
      widen(__byte_perm(value[2][k / 2], value[3][k / 2], two), a[2], a[3]);
      multiply_all(out[k], {a[0], a[1], a[2], a[3]}, p);
    }
  }
};

// A warp's way through its blocks of a stretch of context: which come next, and where they go. Each
// warp asks for its own.
struct BulkQueue {
  const e4m3 *keys; // of the KV head in the cache's first block
  const e4m3 *values;
  const int *blocks; // of the sequence
  size_t stride;     // of the cache's blocks
  uint8_t *stages;   // [STAGES][keys, values][TILE]
  Gate *gates;       // [STAGES]
  int next, end;     // positions: of the block that is asked for next, and where the stretch ends

  __device__ __forceinline__ int number_of(int position) const {
    return position < end ? blocks[position / BLOCK_TOKENS] : 0;
  }

  // Asks for the next block, which has that number, if there is one; all lanes have read the stage.
  __device__ __forceinline__ void ask(int stage, int number) {
    if (next < end && threadIdx.x % WARP == 0) {
      int bytes = min(BLOCK_TOKENS, end - next) * HEAD;
      uint8_t *to = stages + stage * 2 * TILE;
      arrive_expecting(gates + stage, 2 * bytes);
      copy_bulk(to, keys + number * stride, bytes, gates + stage);
      copy_bulk(to + TILE, values + number * stride, bytes, gates + stage);
    }
    next += DECODE_WARPS * BLOCK_TOKENS;
  }
};

// A warp's share of a stretch: of every fourth block, from position `at` on. The queue's first STAGES
// are asked for.
__device__ __forceinline__ void attend_all(BulkColumns &mine, BulkQueue &queue, int at, float scale) {
  int stage = 0;
  uint32_t parity = 0;
  int number = queue.number_of(queue.next); // looked up one block ahead: nothing waits for it
  for (; at < queue.end; at += DECODE_WARPS * BLOCK_TOKENS) {
    await(queue.gates + stage, parity);
    const uint8_t *come = queue.stages + stage * 2 * TILE;
    mine.load_keys(come);
    mine.load_values(come + TILE);
    __syncwarp();
    queue.ask(stage, number);
    number = queue.number_of(queue.next);
    float s[1][4] = {};
    mine.scores(s);
    uint32_t p[1][2];
    if (at + BLOCK_TOKENS <= queue.end) {
      mine.weigh<false>(s, p, at, queue.end - 1, scale);
    } else {
      mine.cut_values(queue.end - at);
      mine.weigh<true>(s, p, at, queue.end - 1, scale);
    }
    mine.take(p);
    if (++stage == STAGES) {
      stage = 0;
      parity ^= 1;
    }
  }
}

// As decode(), of up to eight query heads a KV head. memory: [warp][STAGES][keys, values][TILE];
// copies in bulk want places that are multiples of 64 bytes.
extern "C" __global__ void __launch_bounds__(DECODE_WARPS *WARP, DECODE_BLOCKS)
    decode_fp8_sm90_128(const bf16 *q, const e4m3 *keys, const e4m3 *values, bf16 *out,
                        float *partial, float *weight, const int *query_start,
                        const int *context_length, const int *block_table, const int *item_sequence,
                        const int *item_from, const int *item_to, int max_blocks, int kv_heads,
                        int group, int q_stride, int out_stride, float scale, float factor) {
  extern __shared__ __align__(128) bf16 memory[];
  __shared__ Gate gates[DECODE_WARPS][STAGES];
  admit_next();
  int item = blockIdx.x;
  int sequence = item_sequence[item];
  int from = item_from[item];
  int to = item_to[item];
  if (from >= to) {
    await_previous();
    return; // no item: a graph's grid has room for the most
  }
  size_t kv_head = blockIdx.y;
  size_t head = kv_head * group;
  size_t query = query_start[sequence];

  int warp = threadIdx.x / WARP;
  int lane = threadIdx.x % WARP;
  constexpr int STEP = DECODE_WARPS * BLOCK_TOKENS;
  int first = from + warp * BLOCK_TOKENS;
  BulkQueue queue = {keys + kv_head * TILE,
                     values + kv_head * TILE,
                     block_table + static_cast<size_t>(sequence) * max_blocks,
                     static_cast<size_t>(kv_heads) * TILE,
                     reinterpret_cast<uint8_t *>(memory) + warp * STAGES * 2 * TILE,
                     gates[warp],
                     first,
                     to};
  int number = lane < STAGES ? queue.number_of(first + lane * STEP) : 0;
  if (lane == 0) {
#pragma unroll
    for (int i = 0; i < STAGES; i++) {
      make_gate(queue.gates + i, 1);
    }
    gates_made();
  }
  __syncwarp();
  // The kernel before makes the query, and stores the last position. What lies in blocks before that
  // position's has been there since earlier steps, which have ended: a step begins with a copy, or is
  // a graph.
  int made = (context_length[sequence] - 1) / BLOCK_TOKENS * BLOCK_TOKENS;
#pragma unroll
  for (int i = 0; i < STAGES; i++) {
    if (queue.next >= made) {
      await_previous();
    }
    queue.ask(i, __shfl_sync(ALL, number, i));
  }
  await_previous();
  BulkColumns mine;
  mine.begin(q + query * q_stride + head * HEAD, group);
  attend_all(mine, queue, first, scale);

  size_t at = static_cast<size_t>(item) * kv_heads * group + head;
  bool whole = from == 0 && to == context_length[sequence];
  finish<HEAD, e4m3, 1>(mine, reinterpret_cast<float *>(memory),
                        {out + query * out_stride + head * HEAD, partial + at * HEAD, weight + at,
                         group, whole, factor});
}

#endif
