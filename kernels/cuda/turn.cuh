// Rotary position embedding of a head, and what the cache keeps of it.
#pragma once

#include "fp8.cuh"

__device__ __forceinline__ void keep8(bf16 *p, float (&v)[VECTOR], float) { store8(p, v); }

__device__ __forceinline__ void keep8(e4m3 *p, float (&v)[VECTOR], float inverse) {
#pragma unroll
  for (int i = 0; i < VECTOR; i++) {
    v[i] *= inverse;
  }
  store8(p, v);
}

// Turns eight pairs of a head, (j..j+7) and (half+j..half+j+7), times `factor`. T: bf16, or e4m3,
// whose numbers are multiplied by `inverse` too.
template <typename T>
__device__ __forceinline__ void turn(const bf16 *head, const float *cos, const float *sin, int half,
                                     int j, T *out, float factor, float inverse) {
  float low[VECTOR], high[VECTOR], c[VECTOR], s[VECTOR];
  load8(head + j, low);
  load8(head + half + j, high);
  load8(cos + j, c);
  load8(sin + j, s);
#pragma unroll
  for (int i = 0; i < VECTOR; i++) {
    float x = low[i] * factor, y = high[i] * factor;
    // Fused as it stands here, so that each kernel comes to the same bits.
    low[i] = fmaf(x, c[i], -(y * s[i]));
    high[i] = fmaf(y, c[i], x * s[i]);
  }
  keep8(out + j, low, inverse);
  keep8(out + half + j, high, inverse);
}

// Eight pairs of a head as they are, times `factor`: a value's.
template <typename T>
__device__ __forceinline__ void carry(const bf16 *head, int half, int j, T *out, float factor,
                                      float inverse) {
  float low[VECTOR], high[VECTOR];
  load8(head + j, low);
  load8(head + half + j, high);
#pragma unroll
  for (int i = 0; i < VECTOR; i++) {
    low[i] *= factor;
    high[i] *= factor;
  }
  keep8(out + j, low, inverse);
  keep8(out + half + j, high, inverse);
}
