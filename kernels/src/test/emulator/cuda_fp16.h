#pragma once

#include "cuda_bf16.h"

struct __half {
  uint16_t bits;
};
inline float __half2float(__half v) { return static_cast<float>(bits_as<_Float16>(v.bits)); }
