// The conversions of e4m3 that the kernels use, by way of float.
#pragma once

#include "cuda_fp16.h"

typedef uint8_t __nv_fp8_storage_t;
typedef uint16_t __nv_fp8x2_storage_t;
enum __nv_saturation_t { __NV_NOSAT, __NV_SATFINITE };
enum __nv_fp8_interpretation_t { __NV_E4M3, __NV_E5M2 };
struct __half_raw {
  uint16_t x;
};
struct __half2_raw {
  uint16_t x, y;
};

inline __nv_fp8_storage_t __nv_cvt_float_to_fp8(float v, __nv_saturation_t,
                                                __nv_fp8_interpretation_t) {
  uint32_t bits = bits_as<uint32_t>(v);
  uint8_t sign = bits >> 24 & 0x80;
  if (v != v) {
    return sign | 0x7f;
  }
  float magnitude = fabsf(v);
  if (magnitude < 0x1p-6f) {
    return sign | static_cast<uint8_t>(nearbyintf(magnitude * 0x1p9f));
  }
  uint32_t m = bits & 0x7fffffff;
  uint32_t code = ((m + 0x7ffff + (m >> 20 & 1)) >> 20) - 120 * 8;
  return sign | static_cast<uint8_t>(code < 0x7e ? code : 0x7e);
}
inline __nv_fp8x2_storage_t __nv_cvt_float2_to_fp8x2(float2 v, __nv_saturation_t s,
                                                     __nv_fp8_interpretation_t t) {
  return __nv_cvt_float_to_fp8(v.x, s, t) | __nv_cvt_float_to_fp8(v.y, s, t) << 8;
}
inline __half_raw __nv_cvt_fp8_to_halfraw(__nv_fp8_storage_t v, __nv_fp8_interpretation_t) {
  float m = v & 7;
  int e = v >> 3 & 15;
  float magnitude = (v & 0x7f) == 0x7f ? NAN : e == 0 ? m * 0x1p-9f : ldexpf(1 + m / 8, e - 7);
  return {bits_as<uint16_t>(static_cast<_Float16>(v & 0x80 ? -magnitude : magnitude))};
}
inline __half2_raw __nv_cvt_fp8x2_to_halfraw2(__nv_fp8x2_storage_t v, __nv_fp8_interpretation_t t) {
  return {__nv_cvt_fp8_to_halfraw(v & 0xff, t).x, __nv_cvt_fp8_to_halfraw(v >> 8, t).x};
}
