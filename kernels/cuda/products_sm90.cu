// Products of some rows, out = x * weight^T, of e4m3 or bfloat16, for Hopper: so few rows, 64 at most
// (16 of bfloat16), that what counts is still that weights come at the speed of memory. Other chips have
// nothing of this file.
//
// The weight is the matrix of 64 rows of a warpgroup's products, x the other. A block has a tile of
// outputs, two warpgroups that multiply, and two warps that ask for weights and x, stretches of the
// columns at a time, in boxes that the copy engine lays out as products read them. Where tiles are too
// few for the multiprocessors a pair of blocks (a cluster) shares one: each takes half of the columns,
// and in the end of the rows. Which tiles there are depends on the weight alone, so a row of the result
// depends neither on the number of rows nor on where it stands.
//
// Weights are asked for while kernels before still run. No more of them are on their way than memory
// needs to be busy, and fewer before x is there: what is asked for beyond that would stand before the
// small things that the kernels before wait for.
//
// What runs once, at the end, is kept short: it is fetched when it runs.

#include "block.cuh"
#include "bulk.cuh"
#include "cluster.cuh"
#include "element.cuh"
#include "fp8.cuh"
#include "overlap.cuh"
#include "wgmma.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

constexpr int SIDES = 2; // warpgroups that multiply
constexpr int SIDE_THREADS = SIDES * WARPGROUP;
constexpr int PRODUCT_THREADS = SIDE_THREADS + 2 * WARP;
constexpr int SIDE_OUTPUTS = 64;
constexpr int STRETCH_LINES = 2; // of a row, at once
constexpr int STEP_BYTES = 32;   // of a line, in one product
constexpr int MOST_STAGES = 12;
constexpr int SIDES_DONE = 1; // a named barrier

// What the cache is told of weights, which are read once, and of x, which all blocks read, as
// createpolicy encodes it.
constexpr uint64_t EVICT_FIRST = 0x12F0000000000000ull;
constexpr uint64_t EVICT_LAST = 0x14F0000000000000ull;

// c = a * b^T, or with ADD c += a * b^T, of 64 rows of a and N of b, 32 bytes of each row.
#define PLACES_8 "{%0,%1,%2,%3,%4,%5,%6,%7"
#define PLACES_16 PLACES_8 ",%8,%9,%10,%11,%12,%13,%14,%15"
#define PLACES_24 PLACES_16 ",%16,%17,%18,%19,%20,%21,%22,%23"
#define HELD_16(c, i) HELD_8(c, i), HELD_8(c, i + 8)
#define HELD_24(c, i) HELD_16(c, i), HELD_8(c, i + 16)
#define ROWS_PRODUCT(SHAPE, TYPE, COUNT, A, B, ADD, END)                                           \
  asm volatile("wgmma.mma_async.sync.aligned." SHAPE ".f32." TYPE "." TYPE " " PLACES_##COUNT      \
               "}, " A ", " B ", " ADD ", 1, 1" END ";\n"                                          \
               : HELD_##COUNT(c, 0)                                                                \
               : "l"(a), "l"(b))
#define E4M3_PRODUCTS(N, COUNT, A, B)                                                              \
  template <bool ADD>                                                                              \
  __device__ __forceinline__ void multiply_step(float(&c)[COUNT], uint64_t a, uint64_t b,          \
                                                const e4m3 *) {                                    \
    if constexpr (ADD) {                                                                           \
      ROWS_PRODUCT("m64n" #N "k32", "e4m3", COUNT, A, B, "1", "");                                 \
    } else {                                                                                       \
      ROWS_PRODUCT("m64n" #N "k32", "e4m3", COUNT, A, B, "0", "");                                 \
    }                                                                                              \
  }
E4M3_PRODUCTS(16, 8, "%8", "%9")
E4M3_PRODUCTS(32, 16, "%16", "%17")
E4M3_PRODUCTS(48, 24, "%24", "%25")
E4M3_PRODUCTS(64, 32, "%32", "%33")
template <bool ADD>
__device__ __forceinline__ void multiply_step(float (&c)[8], uint64_t a, uint64_t b, const bf16 *) {
  if constexpr (ADD) {
    ROWS_PRODUCT("m64n16k16", "bf16", 8, "%8", "%9", "1", ", 0, 0");
  } else {
    ROWS_PRODUCT("m64n16k16", "bf16", 8, "%8", "%9", "0", ", 0, 0");
  }
}

// A line of each row of a tile.
__device__ __forceinline__ void copy_lines(void *to, const TensorMap &map, int column, int row,
                                           Gate &gate, uint64_t policy) {
  asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes"
               ".L2::cache_hint [%0], [%1, {%2, %3}], [%4], %5;\n" ::"r"(shared_address(to)),
               "l"(&map), "r"(column), "r"(row), "r"(shared_address(&gate)), "l"(policy)
               : "memory");
}

// Clusters.

__device__ __forceinline__ void arrive_in_cluster() {
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
}

// Until all threads of the cluster that have not ended have arrived.
__device__ __forceinline__ void await_cluster() {
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}

// Leaves four numbers in a block's shared memory, at the place that `here` has in this one's.
__device__ __forceinline__ void leave_at(const float4 *here, int rank, const float (&v)[4]) {
  asm volatile("st.shared::cluster.v4.f32 [%0], {%1, %2, %3, %4};" ::"r"(in_block(here, rank)),
               "f"(v[0]), "f"(v[1]), "f"(v[2]), "f"(v[3])
               : "memory");
}

struct Product {
  void *out;
  const float *scales; // of the rows, or null
  float factor;
  int outputs;
  int lines; // of 128 bytes of a row of x or weight; what is beyond its end counts as zeros
  int rows;
  int out_stride;
  int wide; // whether out is of floats, else of bfloat16
  int tile; // outputs of a block, a multiple of 16
  int stages;
  int early; // of the stages, so many of weights are on their way at most before x is there
  int most;  // and later; no more than there are
};

// Stores four numbers of a warp's 16 outputs from `output` on, of those below `outputs`, by eight rows
// from `row` on, as products leave them, times the rows' scales. By all threads of the warp.
__device__ __forceinline__ void store_fragment(const Product &p, int output, int outputs, int row,
                                               const float *scales, const float (&v)[4]) {
  int g = threadIdx.x % WARP / 4, t = threadIdx.x % 4;
  float scale[2] = {scales[row + 2 * t], scales[row + 2 * t + 1]};
  if (p.wide) {
    float *out = static_cast<float *>(p.out);
#pragma unroll
    for (int i = 0; i < 4; i++) {
      int r = row + 2 * t + i % 2, o = output + g + i / 2 * 8;
      if (r < p.rows && o < outputs) {
        out[static_cast<size_t>(r) * p.out_stride + o] = v[i] * scale[i % 2];
      }
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < 2; i++) {
    // A thread then has two outputs of one row, which lie side by side.
    uint32_t pair = transposed(pack(v[2 * i] * scale[0], v[2 * i + 1] * scale[1]));
    int r = row + g, o = output + i * 8 + 2 * t;
    if (r >= p.rows || o >= outputs) {
      continue;
    }
    bf16 *to = static_cast<bf16 *>(p.out) + static_cast<size_t>(r) * p.out_stride + o;
    __nv_bfloat162 two = *reinterpret_cast<__nv_bfloat162 *>(&pair);
    if (o + 1 < outputs && reinterpret_cast<uintptr_t>(to) % sizeof(two) == 0) {
      *reinterpret_cast<__nv_bfloat162 *>(to) = two;
    } else {
      to[0] = two.x;
      if (o + 1 < outputs) {
        to[1] = two.y;
      }
    }
  }
}

// Which stage of the queue, and which parity its gates' turns have this time round.
struct Place {
  int stage = 0;
  int parity = 0;

  __device__ __forceinline__ void next(int stages) {
    if (++stage == stages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

// N: rows of x, at least as many as there are. memory: the queue, a stage's weights before its x, each
// line of all rows after another; then what the other block of a pair leaves. No less than half a tile
// follows the last weights: products of a tile that is not whole read on behind it, for outputs that
// are not stored.
template <typename T, int N>
__device__ __forceinline__ void multiply_rows(uint8_t *memory, const TensorMap &weight,
                                              const TensorMap &x, const Product &p) {
  constexpr int SUMS = N / 2;      // of a thread
  constexpr int FRAGMENTS = N / 8; // of four
  constexpr int LINE_NUMBERS = LINE_BYTES / static_cast<int>(sizeof(T));
  constexpr int X_LINE = N * LINE_BYTES;
  __shared__ Gate weight_here[MOST_STAGES];
  __shared__ Gate x_here[MOST_STAGES];
  __shared__ Gate read[MOST_STAGES];
  __shared__ float scales[N];
  __shared__ int x_asked;
  int weight_line = p.tile * LINE_BYTES;
  int stage_bytes = STRETCH_LINES * (weight_line + X_LINE);
  int rank = cluster_rank(), blocks = cluster_size();
  int output = static_cast<int>(blockIdx.x) / blocks * p.tile;
  int all = (p.lines + STRETCH_LINES - 1) / STRETCH_LINES;
  int begin = all * rank / blocks, end = all * (rank + 1) / blocks;

  admit_next();
  if (threadIdx.x == 0) {
    for (int s = 0; s < p.stages; s++) {
      make_gate(weight_here + s, 1);
      make_gate(x_here + s, 1);
      make_gate(read + s, SIDE_THREADS / WARP);
    }
    x_asked = 0;
    gates_made();
  }
  __syncthreads();
  if (blocks > 1) { // the other may write to this block's memory from here on
    arrive_in_cluster();
  }

  if (threadIdx.x >= SIDE_THREADS) {
    if (blocks > 1) {
      await_cluster();
    }
    if (threadIdx.x % WARP != 0) {
      return;
    }
    volatile int *seen = &x_asked;
    Place at;
    if (threadIdx.x != SIDE_THREADS) {
      asm volatile("prefetch.tensormap [%0];" ::"l"(&x) : "memory");
      await_previous();
      *seen = 1;
      for (int u = begin; u < end; u++, at.next(p.stages)) {
        if (u - begin >= p.stages) {
          await(read + at.stage, at.parity ^ 1);
        }
        arrive_expecting(x_here + at.stage, STRETCH_LINES * X_LINE);
        uint8_t *to = memory + at.stage * stage_bytes + STRETCH_LINES * weight_line;
#pragma unroll
        for (int l = 0; l < STRETCH_LINES; l++) {
          copy_lines(to + l * X_LINE, x, (u * STRETCH_LINES + l) * LINE_NUMBERS, 0,
                     x_here[at.stage], EVICT_LAST);
        }
      }
      return;
    }
    int there = begin;
    Place next_there;
    for (int u = begin; u < end; u++, at.next(p.stages)) {
      if (u - begin >= p.stages) {
        await(read + at.stage, at.parity ^ 1);
      }
      int most = *seen ? p.most : p.early;
      for (; u - there >= most; there++, next_there.next(p.stages)) {
        await(weight_here + next_there.stage, next_there.parity);
      }
      arrive_expecting(weight_here + at.stage, STRETCH_LINES * weight_line);
      uint8_t *to = memory + at.stage * stage_bytes;
#pragma unroll
      for (int l = 0; l < STRETCH_LINES; l++) {
        copy_lines(to + l * weight_line, weight, (u * STRETCH_LINES + l) * LINE_NUMBERS, output,
                   weight_here[at.stage], EVICT_FIRST);
      }
    }
    return;
  }

  await_previous();
  if (threadIdx.x < N) {
    int row = threadIdx.x;
    bool scaled = p.scales != nullptr && row < p.rows;
    scales[row] = scaled ? p.factor * p.scales[row] : p.factor;
  }
  int side = threadIdx.x / WARPGROUP;
  float sums[SUMS] = {};
  Place at;
  for (int u = begin; u < end; u++, at.next(p.stages)) {
    await(weight_here + at.stage, at.parity);
    await(x_here + at.stage, at.parity);
    // The matrix units keep fewer digits of a sum than a float has: they add up a stretch.
    float c[SUMS];
    hold(c);
    begin_products();
    const uint8_t *stage = memory + at.stage * stage_bytes;
#pragma unroll
    for (int l = 0; l < STRETCH_LINES; l++) {
      const uint8_t *outputs = stage + l * weight_line + side * SIDE_OUTPUTS * LINE_BYTES;
      const uint8_t *rows = stage + STRETCH_LINES * weight_line + l * X_LINE;
      uint64_t a = descriptor(outputs, 0, BOX_BYTES), b = descriptor(rows, 0, BOX_BYTES);
#pragma unroll
      for (int k = 0; k < LINE_BYTES / STEP_BYTES; k++) {
        constexpr int STEP = STEP_BYTES >> 4; // as descriptors count
        if (l == 0 && k == 0) {
          multiply_step<false>(c, a, b, static_cast<const T *>(nullptr));
        } else {
          multiply_step<true>(c, a + k * STEP, b + k * STEP, static_cast<const T *>(nullptr));
        }
      }
    }
    commit_products();
    await_products<0>();
    hold(c);
    if (threadIdx.x % WARP == 0) {
      arrive(read + at.stage);
    }
#pragma unroll
    for (int i = 0; i < SUMS; i++) {
      sums[i] += c[i];
    }
  }

  // Of a tile that a pair shares each block has half of the fragments, and the other leaves its sums of
  // them with it.
  bool paired = blocks > 1;
  float4 *kept = reinterpret_cast<float4 *>(memory) + threadIdx.x;
  float4 *left = reinterpret_cast<float4 *>(memory + p.stages * stage_bytes) + threadIdx.x;
  int mine = paired ? FRAGMENTS / 2 : FRAGMENTS;
  sync_named(SIDES_DONE, SIDE_THREADS); // nobody reads the queue any more
  if (paired) {
    await_cluster();
  }
#pragma unroll
  for (int f = 0; f < FRAGMENTS; f++) {
    float v[4] = {sums[4 * f], sums[4 * f + 1], sums[4 * f + 2], sums[4 * f + 3]};
    int owner = f / (FRAGMENTS / 2);
    int place = (paired ? f % (FRAGMENTS / 2) : f) * SIDE_THREADS;
    if (!paired || owner == rank) {
      kept[place] = make_float4(v[0], v[1], v[2], v[3]);
    } else {
      leave_at(left + place, owner, v);
    }
  }
  if (paired) {
    arrive_in_cluster();
    await_cluster();
  }
  int in_tile = threadIdx.x / WARP * 16;
  if (in_tile >= p.tile) {
    return;
  }
#pragma unroll 1
  for (int i = 0; i < mine; i++) {
    float4 own = kept[i * SIDE_THREADS];
    float v[4] = {own.x, own.y, own.z, own.w};
    if (paired) {
      float4 more = left[i * SIDE_THREADS];
      v[0] += more.x, v[1] += more.y, v[2] += more.z, v[3] += more.w;
    }
    store_fragment(p, output + in_tile, min(p.outputs, output + p.tile), (rank * mine + i) * 8, scales,
                   v);
  }
}

// Grid: tiles, or twice as many in clusters of two.
#define PRODUCTS(NAME, T, N)                                                                       \
  extern "C" __global__ void __launch_bounds__(PRODUCT_THREADS, 2)                                 \
      NAME(const __grid_constant__ TensorMap weight, const __grid_constant__ TensorMap x,          \
           void *out, const float *scales, float factor, int outputs, int lines, int rows,         \
           int out_stride, int wide, int tile, int stages, int early, int most) {                  \
    extern __shared__ __align__(1024) uint8_t memory[];                                            \
    Product p = {out,        scales, factor, outputs, lines, rows,                                 \
                 out_stride, wide,   tile,   stages,  early, most};                                \
    multiply_rows<T, N>(memory, weight, x, p);                                                     \
  }

PRODUCTS(products_e4m3_16, e4m3, 16)
PRODUCTS(products_e4m3_32, e4m3, 32)
PRODUCTS(products_e4m3_48, e4m3, 48)
PRODUCTS(products_e4m3_64, e4m3, 64)
PRODUCTS(products_bf16_16, bf16, 16)

#endif
