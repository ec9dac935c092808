// Root-mean-square norm, alone and fused with the residual addition before it.
//
// One block a row. The sum of squares is taken over the same elements in the same order whatever
// the number of rows, so a row's result does not depend on what else is in the batch.

#include "block.cuh"
#include "element.cuh"
#include "overlap.cuh"

constexpr int THREADS = 256;

// Vectors of a row that a thread keeps in registers: rows of up to 8192 numbers.
constexpr int KEPT = 4;

__device__ __forceinline__ float row_scale(float squares, int dim, float epsilon) {
  __shared__ float scratch[WARP];
  float sum = block_reduce(squares, scratch, 0.0f, [](float a, float b) { return a + b; });
  return rsqrtf(sum / dim + epsilon);
}

// Rows that vectors divide. With ADD: x += y first, and the norm is that of the sum as it is
// stored, so the result equals that of the two steps apart.
template <bool ADD>
__device__ void norm_vectors(bf16 *x, const bf16 *y, const float *weight, bf16 *out, int dim,
                             float epsilon) {
  size_t row = static_cast<size_t>(blockIdx.x) * dim;
  int vectors = dim / VECTOR;
  float kept[KEPT][VECTOR];
  float squares = 0.0f;
#pragma unroll
  for (int k = 0; k < KEPT; k++) {
    int i = threadIdx.x + k * THREADS;
    if (i < vectors) {
      load8(x + row + i * VECTOR, kept[k]);
      if (ADD) {
        float other[VECTOR];
        load8(y + row + i * VECTOR, other);
#pragma unroll
        for (int j = 0; j < VECTOR; j++) {
          kept[k][j] += other[j];
        }
        round8(kept[k]);
        store8(x + row + i * VECTOR, kept[k]);
      }
#pragma unroll
      for (int j = 0; j < VECTOR; j++) {
        squares += kept[k][j] * kept[k][j];
      }
    }
  }
  float scale = row_scale(squares, dim, epsilon);
#pragma unroll
  for (int k = 0; k < KEPT; k++) {
    int i = threadIdx.x + k * THREADS;
    if (i < vectors) {
      float w[VECTOR];
      load8(weight + i * VECTOR, w);
#pragma unroll
      for (int j = 0; j < VECTOR; j++) {
        kept[k][j] *= scale * w[j];
      }
      store8(out + row + i * VECTOR, kept[k]);
    }
  }
}

// Rows of any length. Each thread reads back only what it wrote.
template <bool ADD>
__device__ void norm_elements(bf16 *x, const bf16 *y, const float *weight, bf16 *out, int dim,
                              float epsilon) {
  size_t row = static_cast<size_t>(blockIdx.x) * dim;
  float squares = 0.0f;
  for (int i = threadIdx.x; i < dim; i += THREADS) {
    if (ADD) {
      store(x, row + i, load(x, row + i) + load(y, row + i));
    }
    float v = load(x, row + i);
    squares += v * v;
  }
  float scale = row_scale(squares, dim, epsilon);
  for (int i = threadIdx.x; i < dim; i += THREADS) {
    store(out, row + i, load(x, row + i) * (scale * weight[i]));
  }
}

// x, y, out: [rows][dim]; weight: [dim]. y is null where there is nothing to add. out may be x if
// nothing is added.
template <bool ADD>
__device__ void norm(bf16 *x, const bf16 *y, const float *weight, bf16 *out, int dim,
                     float epsilon) {
  admit_next();
  await_previous();
  if (dim % VECTOR == 0 && dim <= KEPT * THREADS * VECTOR) {
    norm_vectors<ADD>(x, y, weight, out, dim, epsilon);
  } else {
    norm_elements<ADD>(x, y, weight, out, dim, epsilon);
  }
}

extern "C" __global__ void __launch_bounds__(THREADS)
    rms_norm(bf16 *x, const float *weight, bf16 *out, int dim, float epsilon) {
  norm<false>(x, nullptr, weight, out, dim, epsilon);
}

extern "C" __global__ void __launch_bounds__(THREADS)
    add_rms_norm(bf16 *x, const bf16 *y, const float *weight, bf16 *out, int dim, float epsilon) {
  norm<true>(x, y, weight, out, dim, epsilon);
}
