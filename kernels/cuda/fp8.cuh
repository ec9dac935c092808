// e4m3 numbers in memory (sign, four bits of exponent, three of mantissa, no infinities), float in
// registers. sm_89 and later convert in hardware, others by the header's arithmetic.
#pragma once

#include <cuda_fp8.h>
#include <stdint.h>

#include "element.cuh"

typedef __nv_fp8_storage_t e4m3;

constexpr float E4M3_MAX = 448.0f;

// The nearest, ties to even; what is too large becomes the largest, what is no number stays none.
__device__ __forceinline__ e4m3 to_e4m3(float v) {
  return __nv_cvt_float_to_fp8(v, __NV_SATFINITE, __NV_E4M3);
}

__device__ __forceinline__ float from_e4m3(e4m3 v) {
  return __half2float(__half(__nv_cvt_fp8_to_halfraw(v, __NV_E4M3)));
}

__device__ __forceinline__ uint32_t to_e4m3x2(float low, float high) {
  return __nv_cvt_float2_to_fp8x2(make_float2(low, high), __NV_SATFINITE, __NV_E4M3);
}

// Four numbers, the first in the lowest byte.
__device__ __forceinline__ uint32_t to_e4m3x4(float a, float b, float c, float d) {
  return to_e4m3x2(a, b) | to_e4m3x2(c, d) << 16;
}

// Eight numbers at an address that is a multiple of 8.
__device__ __forceinline__ void store8(e4m3 *p, const float (&v)[VECTOR]) {
  uint2 raw;
  raw.x = to_e4m3x4(v[0], v[1], v[2], v[3]);
  raw.y = to_e4m3x4(v[4], v[5], v[6], v[7]);
  *reinterpret_cast<uint2 *>(p) = raw;
}

// What numbers are divided by so that the largest of them becomes E4M3_MAX; 1 for zeros.
__device__ __forceinline__ float e4m3_scale(float largest) {
  return largest > 0.0f ? fmaxf(largest / E4M3_MAX, 1.17549435e-38f) : 1.0f;
}

// Two IEEE halves of the two numbers of e4m3 in the low half of v.
__device__ __forceinline__ uint32_t halves(uint32_t v) {
  __half2_raw pair = __nv_cvt_fp8x2_to_halfraw2(static_cast<__nv_fp8x2_storage_t>(v), __NV_E4M3);
  return pair.x | static_cast<uint32_t>(pair.y) << 16;
}

// Four numbers of e4m3 as two and two halves.
__device__ __forceinline__ void widen(uint32_t v, uint32_t &low, uint32_t &high) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
  asm("{\n"
      ".reg .b16 l, h;\n"
      "mov.b32 {l, h}, %2;\n"
      "cvt.rn.f16x2.e4m3x2 %0, l;\n"
      "cvt.rn.f16x2.e4m3x2 %1, h;\n"
      "}\n"
      : "=r"(low), "=r"(high)
      : "r"(v));
#else
  low = halves(v & 0xffff);
  high = halves(v >> 16);
#endif
}

// Sixteen numbers of e4m3 as halves.
__device__ __forceinline__ void widened(const uint4 &raw, uint4 &low, uint4 &high) {
  low.x = halves(raw.x), low.y = halves(raw.x >> 16);
  low.z = halves(raw.y), low.w = halves(raw.y >> 16);
  high.x = halves(raw.z), high.y = halves(raw.z >> 16);
  high.z = halves(raw.w), high.w = halves(raw.w >> 16);
}
