// Products of few rows by FP8 weights, which are read once, at the speed of memory.
//
// The weights are the first factor of the matrix units, so that a tile has 16 outputs and eight rows.
// Both factors go from memory to registers as they are: of 64 numbers of a row a thread takes 16, and
// which of them is called which is the same for both. They are multiplied as halves, which hold every
// number of e4m3, and summed in float, in an order that does not depend on how many rows there are.

#include "block.cuh"
#include "fp8.cuh"
#include "mma.cuh"

constexpr int FEW_WARPS = 8;
constexpr int FEW_OUTPUTS = 32;
constexpr int CHUNK = 64;

// A block has 32 outputs; its warps take every eighth chunk of the inputs. TILES: of eight rows.
template <int TILES, int AHEAD>
__device__ __forceinline__ void few(const e4m3 *x, const e4m3 *weight, bf16 *out,
                                    const float *scales, int rows, int inputs, int out_stride,
                                    float factor) {
  __shared__ float sums[FEW_WARPS][FEW_OUTPUTS][TILES * 8 + 1];
  int warp = threadIdx.x / WARP;
  int g = threadIdx.x % WARP / 4;
  int t = threadIdx.x % 4;
  size_t first = static_cast<size_t>(blockIdx.x) * FEW_OUTPUTS;
  const e4m3 *w = weight + (first + g) * inputs + t * 16;
  const e4m3 *from = x + static_cast<size_t>(g) * inputs + t * 16;
  float c[2][TILES][4] = {};

  for (int at = warp * CHUNK; at < inputs; at += AHEAD * FEW_WARPS * CHUNK) {
    uint4 a[AHEAD][4];
#pragma unroll
    for (int i = 0; i < AHEAD; i++) {
      int k = at + i * FEW_WARPS * CHUNK;
#pragma unroll
      for (int r = 0; r < 4; r++) {
        a[i][r] = k < inputs
                      ? *reinterpret_cast<const uint4 *>(w + static_cast<size_t>(r) * 8 * inputs + k)
                      : make_uint4(0, 0, 0, 0);
      }
    }
#pragma unroll
    for (int i = 0; i < AHEAD; i++) {
      int k = at + i * FEW_WARPS * CHUNK;
#pragma unroll
      for (int n = 0; n < TILES; n++) {
        uint4 b = k < inputs && n * 8 + g < rows
                      ? *reinterpret_cast<const uint4 *>(from + static_cast<size_t>(n) * 8 * inputs + k)
                      : make_uint4(0, 0, 0, 0);
        const uint32_t words[4] = {b.x, b.y, b.z, b.w};
#pragma unroll
        for (int m = 0; m < 2; m++) {
          const uint4 &low = a[i][2 * m];
          const uint4 &high = a[i][2 * m + 1];
          const uint32_t lows[4] = {low.x, low.y, low.z, low.w};
          const uint32_t highs[4] = {high.x, high.y, high.z, high.w};
#pragma unroll
          for (int j = 0; j < 4; j++) {
            uint32_t q[4] = {halves(lows[j]), halves(highs[j]), halves(lows[j] >> 16),
                             halves(highs[j] >> 16)};
            mma_half(c[m][n], q, halves(words[j]), halves(words[j] >> 16));
          }
        }
      }
    }
  }
#pragma unroll
  for (int m = 0; m < 2; m++) {
#pragma unroll
    for (int n = 0; n < TILES; n++) {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        sums[warp][m * 16 + g + i / 2 * 8][n * 8 + 2 * t + i % 2] = c[m][n][i];
      }
    }
  }
  __syncthreads();
  for (int i = threadIdx.x; i < FEW_OUTPUTS * rows; i += FEW_WARPS * WARP) {
    int row = i / FEW_OUTPUTS;
    int output = i % FEW_OUTPUTS;
    float sum = 0.0f;
#pragma unroll
    for (int k = 0; k < FEW_WARPS; k++) {
      sum += sums[k][output][row];
    }
    float scale = scales == nullptr ? factor : factor * scales[row];
    store(out, row * static_cast<size_t>(out_stride) + first + output, sum * scale);
  }
}

// out[row] = factor * scales[row] * x[row] * weight^T. x: [rows][inputs], weight: [outputs][inputs],
// inputs a multiple of 64; a block for each 32 outputs; scales null: 1.
#define FEW(TILES, AHEAD)                                                                         \
  extern "C" __global__ void __launch_bounds__(FEW_WARPS *WARP) few_fp8_##TILES(                  \
      const e4m3 *x, const e4m3 *weight, bf16 *out, const float *scales, int rows, int inputs,    \
      int out_stride, float factor) {                                                             \
    few<TILES, AHEAD>(x, weight, out, scales, rows, inputs, out_stride, factor);                  \
  }

FEW(1, 4)
FEW(2, 2)
FEW(4, 2)
