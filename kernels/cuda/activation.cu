// out = silu(gate) * up, elementwise; silu(v) = v / (1 + exp(-v)).

#include "element.cuh"

template <typename T>
__device__ void silu_mul(const T *gate, const T *up, T *out, long long count) {
  long long step = static_cast<long long>(gridDim.x) * blockDim.x;
  for (long long i = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x; i < count;
       i += step) {
    float g = load(gate, i);
    store(out, i, g / (1.0f + expf(-g)) * load(up, i));
  }
}

// out may be gate or up.
#define ACTIVATIONS(T, NAME)                                                                      \
  extern "C" __global__ void silu_mul_##NAME(const T *gate, const T *up, T *out,                  \
                                             long long count) {                                   \
    silu_mul<T>(gate, up, out, count);                                                            \
  }

ACTIVATIONS(float, f32)
ACTIVATIONS(__nv_bfloat16, bf16)
