// Weights of other formats to bfloat16, to the nearest, ties to even.

#include <cuda_fp16.h>

#include "element.cuh"

template <typename T, typename ToFloat>
__device__ void convert(const T *in, bf16 *out, long long count, ToFloat to_float) {
  long long step = static_cast<long long>(gridDim.x) * blockDim.x;
  for (long long i = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x; i < count;
       i += step) {
    store(out, i, to_float(in[i]));
  }
}

extern "C" __global__ void f32_to_bf16(const float *in, bf16 *out, long long count) {
  convert(in, out, count, [](float v) { return v; });
}

extern "C" __global__ void f16_to_bf16(const __half *in, bf16 *out, long long count) {
  convert(in, out, count, [](__half v) { return __half2float(v); });
}

extern "C" __global__ void bf16_to_f32(const bf16 *in, float *out, long long count) {
  long long step = static_cast<long long>(gridDim.x) * blockDim.x;
  for (long long i = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x; i < count;
       i += step) {
    out[i] = load(in, i);
  }
}
