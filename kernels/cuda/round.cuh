// A row rounded to e4m3 by a block.
//
// A row is divided by a scale before it is rounded: by one that the weights bring along (fixed
// above 0), or by that which takes its largest number to the largest of e4m3 (fixed is 0), which is
// left in *scale. Either way a row depends on itself alone.
#pragma once

#include "block.cuh"
#include "fp8.cuh"

// Vectors of a row that a thread keeps in registers; longer rows are made twice.
constexpr int KEPT = 4;

__device__ __forceinline__ float largest_of(const float (&v)[VECTOR], float largest) {
#pragma unroll
  for (int j = 0; j < VECTOR; j++) {
    largest = fmaxf(largest, fabsf(v[j]));
  }
  return largest;
}

__device__ __forceinline__ void put(e4m3 *out, float (&v)[VECTOR], float inverse) {
#pragma unroll
  for (int j = 0; j < VECTOR; j++) {
    v[j] *= inverse;
  }
  store8(out, v);
}

// make(i, v): the eight numbers from column i on, the same ones each time. Width: a multiple of 8.
template <typename Make>
__device__ __forceinline__ void round_row(int width, float fixed, float *scale, e4m3 *out,
                                          Make make) {
  __shared__ float scratch[WARP];
  int vectors = width / VECTOR;
  if (fixed > 0.0f) {
    float inverse = 1.0f / fixed;
    for (int i = threadIdx.x; i < vectors; i += blockDim.x) {
      float v[VECTOR];
      make(i * VECTOR, v);
      put(out + i * VECTOR, v, inverse);
    }
    return;
  }
  auto larger = [](float a, float b) { return fmaxf(a, b); };
  if (vectors <= KEPT * static_cast<int>(blockDim.x)) {
    float kept[KEPT][VECTOR];
    float largest = 0.0f;
#pragma unroll
    for (int k = 0; k < KEPT; k++) {
      int i = threadIdx.x + k * blockDim.x;
      if (i < vectors) {
        make(i * VECTOR, kept[k]);
        largest = largest_of(kept[k], largest);
      }
    }
    float s = e4m3_scale(block_reduce(largest, scratch, 0.0f, larger));
#pragma unroll
    for (int k = 0; k < KEPT; k++) {
      int i = threadIdx.x + k * blockDim.x;
      if (i < vectors) {
        put(out + i * VECTOR, kept[k], 1.0f / s);
      }
    }
    if (threadIdx.x == 0) {
      *scale = s;
    }
    return;
  }
  float largest = 0.0f;
  for (int i = threadIdx.x; i < vectors; i += blockDim.x) {
    float v[VECTOR];
    make(i * VECTOR, v);
    largest = largest_of(v, largest);
  }
  float s = e4m3_scale(block_reduce(largest, scratch, 0.0f, larger));
  for (int i = threadIdx.x; i < vectors; i += blockDim.x) {
    float v[VECTOR];
    make(i * VECTOR, v);
    put(out + i * VECTOR, v, 1.0f / s);
  }
  if (threadIdx.x == 0) {
    *scale = s;
  }
}
