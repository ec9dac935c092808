// bfloat16 numbers in memory, float in registers.
#pragma once

#include <cuda_bf16.h>
#include <stdint.h>

typedef __nv_bfloat16 bf16;

// What one thread moves at once.
constexpr int VECTOR = 8;

__device__ __forceinline__ float load(const bf16 *p, size_t i) { return __bfloat162float(p[i]); }

__device__ __forceinline__ void store(bf16 *p, size_t i, float v) { p[i] = __float2bfloat16_rn(v); }

// Eight numbers at an address that is a multiple of 16.
__device__ __forceinline__ void load8(const bf16 *p, float (&v)[VECTOR]) {
  uint4 raw = *reinterpret_cast<const uint4 *>(p);
  const __nv_bfloat162 *pairs = reinterpret_cast<const __nv_bfloat162 *>(&raw);
#pragma unroll
  for (int i = 0; i < VECTOR / 2; i++) {
    float2 pair = __bfloat1622float2(pairs[i]);
    v[2 * i] = pair.x;
    v[2 * i + 1] = pair.y;
  }
}

__device__ __forceinline__ void load8(const float *p, float (&v)[VECTOR]) {
  float4 low = reinterpret_cast<const float4 *>(p)[0];
  float4 high = reinterpret_cast<const float4 *>(p)[1];
  v[0] = low.x, v[1] = low.y, v[2] = low.z, v[3] = low.w;
  v[4] = high.x, v[5] = high.y, v[6] = high.z, v[7] = high.w;
}

__device__ __forceinline__ void store8(bf16 *p, const float (&v)[VECTOR]) {
  uint4 raw;
  __nv_bfloat162 *pairs = reinterpret_cast<__nv_bfloat162 *>(&raw);
#pragma unroll
  for (int i = 0; i < VECTOR / 2; i++) {
    pairs[i] = __floats2bfloat162_rn(v[2 * i], v[2 * i + 1]);
  }
  *reinterpret_cast<uint4 *>(p) = raw;
}

// To what memory will hold of them.
__device__ __forceinline__ void round8(float (&v)[VECTOR]) {
#pragma unroll
  for (int i = 0; i < VECTOR; i++) {
    v[i] = __bfloat162float(__float2bfloat16_rn(v[i]));
  }
}

// The fast forms err by a few units of the last place of a float, far under what bfloat16 keeps. The
// exact ones take longer than the memory.
__device__ __forceinline__ float silu(float v) { return __fdividef(v, 1.0f + __expf(-v)); }

// A word of 16 bytes, by a number that is known when it is compiled.
__device__ __forceinline__ uint32_t word(const uint4 &part, int j) {
  return j == 0 ? part.x : j == 1 ? part.y : j == 2 ? part.z : part.w;
}
