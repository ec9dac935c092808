// bfloat16 weights from other formats, to the nearest, ties to even, and from nothing.

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

// Made-up numbers, spread evenly over [-spread, spread): the same that the Java class RandomNumbers
// makes of the seed.
extern "C" __global__ void random_bf16(bf16 *out, long long count, unsigned long long seed,
                                       float spread) {
  long long step = static_cast<long long>(gridDim.x) * blockDim.x;
  for (long long i = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x; i < count;
       i += step) {
    unsigned long long z = seed + (static_cast<unsigned long long>(i) + 1) * 0x9E3779B97F4A7C15ull;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    z ^= z >> 31;
    store(out, i, static_cast<float>(static_cast<long long>(z) >> 40) * 0x1p-23f * spread);
  }
}
