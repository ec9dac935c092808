// Root-mean-square norm, alone and fused with the residual addition before it.
//
// One block a row. The sum of squares is taken over the same elements in the same order whatever
// the number of rows, so a row's result does not depend on what else is in the batch.

#include "element.cuh"

constexpr int WARP = 32;

// The sum over a block of at most 1024 threads, whole warps only; every thread gets it.
__device__ float block_sum(float v) {
  __shared__ float sums[WARP];
  for (int offset = WARP / 2; offset > 0; offset /= 2) {
    v += __shfl_xor_sync(0xffffffffu, v, offset);
  }
  int lane = threadIdx.x % WARP;
  int warp = threadIdx.x / WARP;
  if (lane == 0) {
    sums[warp] = v;
  }
  __syncthreads();
  v = lane < blockDim.x / WARP ? sums[lane] : 0.0f;
  for (int offset = WARP / 2; offset > 0; offset /= 2) {
    v += __shfl_xor_sync(0xffffffffu, v, offset);
  }
  return v;
}

template <typename T>
__device__ void norm_row(const T *x, const T *weight, T *out, int dim, float epsilon, float squares) {
  float scale = rsqrtf(block_sum(squares) / dim + epsilon);
  for (int i = threadIdx.x; i < dim; i += blockDim.x) {
    store(out, i, load(x, i) * scale * load(weight, i));
  }
}

// x, out: [rows][dim]; weight: [dim]. out may be x.
template <typename T>
__device__ void rms_norm(const T *x, const T *weight, T *out, int dim, float epsilon) {
  size_t row = static_cast<size_t>(blockIdx.x) * dim;
  float squares = 0.0f;
  for (int i = threadIdx.x; i < dim; i += blockDim.x) {
    float v = load(x, row + i);
    squares += v * v;
  }
  norm_row(x + row, weight, out + row, dim, epsilon, squares);
}

// x += y, then out = norm(x); x, y, out: [rows][dim]. The norm is that of the sum as it is stored,
// so the result equals that of the two steps apart. Each thread reads back only what it wrote.
template <typename T>
__device__ void add_rms_norm(T *x, const T *y, const T *weight, T *out, int dim, float epsilon) {
  size_t row = static_cast<size_t>(blockIdx.x) * dim;
  float squares = 0.0f;
  for (int i = threadIdx.x; i < dim; i += blockDim.x) {
    store(x, row + i, load(x, row + i) + load(y, row + i));
    float v = load(x, row + i);
    squares += v * v;
  }
  norm_row(x + row, weight, out + row, dim, epsilon, squares);
}

#define NORMS(T, NAME)                                                                            \
  extern "C" __global__ void rms_norm_##NAME(const T *x, const T *weight, T *out, int dim,        \
                                             float epsilon) {                                     \
    rms_norm<T>(x, weight, out, dim, epsilon);                                                    \
  }                                                                                               \
  extern "C" __global__ void add_rms_norm_##NAME(T *x, const T *y, const T *weight, T *out,       \
                                                 int dim, float epsilon) {                        \
    add_rms_norm<T>(x, y, weight, out, dim, epsilon);                                             \
  }

NORMS(float, f32)
NORMS(__nv_bfloat16, bf16)
