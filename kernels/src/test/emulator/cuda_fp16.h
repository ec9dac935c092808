#pragma once

#include "cuda_bf16.h"

struct __half_raw;
struct __half {
  uint16_t bits;
  __half() = default;
  __half(uint16_t v) : bits(v) {}
  template <typename Raw>
  explicit __half(Raw v) : bits(v.x) {}
};
inline float __half2float(__half v) { return static_cast<float>(bits_as<_Float16>(v.bits)); }
