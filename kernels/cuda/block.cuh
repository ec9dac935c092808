// What the threads of a block find out together. Blocks have whole warps, at most 1024 threads.
#pragma once

constexpr int WARP = 32;
constexpr unsigned ALL = 0xffffffffu;

template <typename T, typename Combine>
__device__ __forceinline__ T warp_reduce(T v, Combine combine) {
#pragma unroll
  for (int offset = WARP / 2; offset > 0; offset /= 2) {
    v = combine(v, __shfl_xor_sync(ALL, v, offset));
  }
  return v;
}

// Every thread gets the result, which does not depend on timing. scratch: one T a warp.
template <typename T, typename Combine>
__device__ __forceinline__ T block_reduce(T v, T *scratch, T neutral, Combine combine) {
  v = warp_reduce(v, combine);
  int lane = threadIdx.x % WARP;
  __syncthreads(); // the scratch memory may still be read from its last use
  if (lane == 0) {
    scratch[threadIdx.x / WARP] = v;
  }
  __syncthreads();
  v = lane < blockDim.x / WARP ? scratch[lane] : neutral;
  return warp_reduce(v, combine);
}
