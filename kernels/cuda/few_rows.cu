// Products of few rows, out = x * weight^T, of e4m3 or bfloat16: what counts is that weights come at
// the speed of memory.
//
// A warp multiplies 16 rows of the weight (two times 16 with MT = 2) by up to 8 * TILES rows of x;
// the warps of a block share the columns out among them and add up in the end, always in the same
// order, so that a row of the result depends neither on the number of rows nor on where it stands.
// Each thread copies the very 16 bytes that it multiplies, so its copies wait for nobody: a queue of
// STAGES of them is on its way all the time. What it holds of the weight is asked for before the
// kernel waits for the one that makes x. x goes through the same queue: loads return in the order
// in which they were asked for, so that a load beside the queue would wait for all that is in it.
//
// The queue takes most of a multiprocessor's memory, so that one block runs on each, and the next
// product's begins where one of this has ended: two of one product on a multiprocessor would take
// twice as long as the others.
//
// A sum does not depend on which of its numbers are called first. So a thread takes 16 bytes of a
// row as they lie, and gives the tensor cores of weight and x the same ones at a time. e4m3 numbers
// become IEEE halves, which hold all of them; sums are floats.

#include "block.cuh"
#include "fp8.cuh"
#include "mma.cuh"
#include "overlap.cuh"

constexpr int FEW_WARPS = 16;
constexpr int FEW_THREADS = FEW_WARPS * WARP;
constexpr int PART = 16;         // bytes that a thread takes of a row at once
constexpr int STRETCH = 4 * PART; // and the four threads that share a row

// c[m][n] += a warp's 16 rows m of the weight, parts (g, 16 bytes) and (g + 8, 16 bytes), by 8 rows n
// of x, part (g, 16 bytes).
template <int MT, int TILES>
__device__ __forceinline__ void multiply(float (&c)[MT][TILES][4], const uint4 (&w)[2 * MT],
                                         const uint4 (&x)[TILES], const e4m3 *) {
#pragma unroll
  for (int j = 0; j < 4; j++) {
    uint32_t a[MT][4];
#pragma unroll
    for (int m = 0; m < MT; m++) {
      uint32_t low = word(w[2 * m], j), high = word(w[2 * m + 1], j);
      a[m][0] = halves(low & 0xffff), a[m][1] = halves(high & 0xffff);
      a[m][2] = halves(low >> 16), a[m][3] = halves(high >> 16);
    }
#pragma unroll
    for (int n = 0; n < TILES; n++) {
      uint32_t b = word(x[n], j);
      uint32_t b0 = halves(b & 0xffff), b1 = halves(b >> 16);
#pragma unroll
      for (int m = 0; m < MT; m++) {
        mma_half(c[m][n], a[m], b0, b1);
      }
    }
  }
}

template <int MT, int TILES>
__device__ __forceinline__ void multiply(float (&c)[MT][TILES][4], const uint4 (&w)[2 * MT],
                                         const uint4 (&x)[TILES], const bf16 *) {
#pragma unroll
  for (int j = 0; j < 4; j += 2) {
#pragma unroll
    for (int m = 0; m < MT; m++) {
      uint32_t a[4] = {word(w[2 * m], j), word(w[2 * m + 1], j), word(w[2 * m], j + 1),
                       word(w[2 * m + 1], j + 1)};
#pragma unroll
      for (int n = 0; n < TILES; n++) {
        mma(c[m][n], a, word(x[n], j), word(x[n], j + 1));
      }
    }
  }
}

// memory: STAGES times 2 * MT parts of the weight and TILES parts of x for each thread, then the
// warps' sums. scales: of the rows, or null. out: float if `wide`, else bfloat16. Rows of weight and
// x are multiples of 16 bytes.
template <typename T, int TILES, int MT, int STAGES>
__device__ __forceinline__ void few_rows(bf16 *memory, const T *weight, const T *x, void *out,
                                         const float *scales, float factor, int outputs, int inputs,
                                         int rows, int x_stride, int out_stride, int wide) {
  constexpr int ROWS = 16 * MT;
  constexpr int PARTS = 2 * MT + TILES;
  constexpr int SUMS = 16 + 4; // of a row of x, so far apart that a warp's meet no bank twice
  uint4 *queue = reinterpret_cast<uint4 *>(memory) + threadIdx.x;
  float *sums = reinterpret_cast<float *>(reinterpret_cast<uint4 *>(memory) +
                                          STAGES * PARTS * FEW_THREADS);
  int warp = threadIdx.x / WARP;
  int lane = threadIdx.x % WARP;
  int g = lane / 4;
  int t = lane % 4;
  int bytes = inputs * static_cast<int>(sizeof(T));
  int chunks = (bytes + STRETCH * FEW_WARPS - 1) / (STRETCH * FEW_WARPS);
  int units = (outputs + ROWS - 1) / ROWS;
  int first = blockIdx.x;
  int grid = gridDim.x;
  int total = first < units ? ((units - 1 - first) / grid + 1) * chunks : 0;
  int begin = warp * STRETCH + t * PART; // of a chunk's bytes

  int ahead = 0, ahead_unit = first, ahead_chunk = 0;
  auto fetch_weight = [&](int slot) {
    if (ahead == total) {
      return;
    }
    int at = ahead_chunk * STRETCH * FEW_WARPS + begin;
    int row = ahead_unit * ROWS + g;
#pragma unroll
    for (int p = 0; p < 2 * MT; p++) {
      bool there = at < bytes && row + p * 8 < outputs;
      size_t from = there ? static_cast<size_t>(row + p * 8) * bytes + at : 0;
      copy_async(queue + (slot * PARTS + p) * FEW_THREADS,
                 reinterpret_cast<const char *>(weight) + from, there);
    }
    ahead++;
    if (++ahead_chunk == chunks) {
      ahead_chunk = 0;
      ahead_unit += grid;
    }
  };
  int x_ahead = 0, x_chunk = 0;
  auto fetch_x = [&](int slot) {
    if (x_ahead == total) {
      return;
    }
    int at = x_chunk * STRETCH * FEW_WARPS + begin;
#pragma unroll
    for (int n = 0; n < TILES; n++) {
      bool there = at < bytes && n * 8 + g < rows;
      size_t from = there ? static_cast<size_t>(n * 8 + g) * x_stride * sizeof(T) + at : 0;
      copy_async(queue + (slot * PARTS + 2 * MT + n) * FEW_THREADS,
                 reinterpret_cast<const char *>(x) + from, there);
    }
    x_ahead++;
    x_chunk = x_chunk + 1 == chunks ? 0 : x_chunk + 1;
  };

  admit_next();
#pragma unroll
  for (int s = 0; s < STAGES; s++) {
    fetch_weight(s);
  }
  await_previous();
#pragma unroll
  for (int s = 0; s < STAGES; s++) {
    fetch_x(s);
    commit_copies(); // the first group also has the weights
  }

  float c[MT][TILES][4] = {};
  int slot = 0, chunk = 0, unit = first;
  for (int i = 0; i < total; i++) {
    await_copies<STAGES - 1>();
    uint4 w[2 * MT], v[TILES];
    const uint4 *come = queue + slot * PARTS * FEW_THREADS;
#pragma unroll
    for (int p = 0; p < 2 * MT; p++) {
      w[p] = come[p * FEW_THREADS];
    }
#pragma unroll
    for (int n = 0; n < TILES; n++) {
      v[n] = come[(2 * MT + n) * FEW_THREADS];
    }
    multiply(c, w, v, weight);
    fetch_weight(slot);
    fetch_x(slot);
    commit_copies();
    slot = slot + 1 == STAGES ? 0 : slot + 1;
    if (++chunk < chunks) {
      continue;
    }
    // The end of a unit: the warps' sums are added and stored, 16 rows of the weight at a time.
#pragma unroll
    for (int m = 0; m < MT; m++) {
#pragma unroll
      for (int n = 0; n < TILES; n++) {
#pragma unroll
        for (int j = 0; j < 4; j++) {
          int row = n * 8 + 2 * t + j % 2;
          if (row < rows) {
            sums[(warp * TILES * 8 + row) * SUMS + j / 2 * 8 + g] = c[m][n][j];
          }
          c[m][n][j] = 0.0f;
        }
      }
      __syncthreads();
      for (int j = threadIdx.x; j < 16 * rows; j += FEW_THREADS) {
        int row = j / 16;
        int column = unit * ROWS + m * 16 + j % 16;
        if (column < outputs) {
          float sum = 0.0f;
#pragma unroll
          for (int k = 0; k < FEW_WARPS; k++) {
            sum += sums[(k * TILES * 8 + row) * SUMS + j % 16];
          }
          sum *= scales == nullptr ? factor : factor * scales[row];
          size_t to = static_cast<size_t>(row) * out_stride + column;
          if (wide) {
            static_cast<float *>(out)[to] = sum;
          } else {
            store(static_cast<bf16 *>(out), to, sum);
          }
        }
      }
      __syncthreads();
    }
    chunk = 0;
    unit += grid;
  }
}

#define FEW_ROWS(NAME, T, TILES, MT, STAGES)                                                      \
  extern "C" __global__ void __launch_bounds__(FEW_THREADS, 1)                                     \
      NAME(const T *weight, const T *x, void *out, const float *scales, float factor, int outputs, \
           int inputs, int rows, int x_stride, int out_stride, int wide) {                         \
    extern __shared__ __align__(16) bf16 memory[];                                                 \
    few_rows<T, TILES, MT, STAGES>(memory, weight, x, out, scales, factor, outputs, inputs, rows,  \
                                   x_stride, out_stride, wide);                                    \
  }

// The launcher knows these numbers too.
FEW_ROWS(few_e4m3_8, e4m3, 1, 2, 5)
FEW_ROWS(few_e4m3_16, e4m3, 2, 2, 4)
FEW_ROWS(few_bf16_8, bf16, 1, 1, 8)
