// What the kernels use of CUDA's headers and language, for g++.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

#define __global__
#define __device__
#define __forceinline__ inline
#define __noinline__
#define __grid_constant__
#define __launch_bounds__(...)
// Blocks run one after another.
#define __shared__ static
#define __align__(n) alignas(n)

struct Index {
  unsigned x = 0, y = 0, z = 0;
};
extern Index blockIdx, blockDim, gridDim, threadIdx;

struct __nv_bfloat16 {
  uint16_t bits;
};
struct __nv_bfloat162 {
  __nv_bfloat16 x, y;
};
struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};
struct alignas(8) uint2 {
  uint32_t x, y;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};

inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w) { return {x, y, z, w}; }
inline uint2 make_uint2(uint32_t x, uint32_t y) { return {x, y}; }
inline float2 make_float2(float x, float y) { return {x, y}; }

template <typename T>
inline T __ldcv(const T *p) {
  return *p;
}

template <typename To, typename From>
inline To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From), "as many bits");
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}

inline float __bfloat162float(__nv_bfloat16 v) {
  return bits_as<float>(static_cast<uint32_t>(v.bits) << 16);
}
inline __nv_bfloat16 __float2bfloat16_rn(float v) {
  uint32_t bits = bits_as<uint32_t>(v);
  if (v != v) {
    return {0x7fff};
  }
  return {static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}
inline float2 __bfloat1622float2(__nv_bfloat162 v) {
  return {__bfloat162float(v.x), __bfloat162float(v.y)};
}
inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y) {
  return {__float2bfloat16_rn(x), __float2bfloat16_rn(y)};
}
inline unsigned __float_as_uint(float v) { return bits_as<unsigned>(v); }
inline float __uint_as_float(unsigned v) { return bits_as<float>(v); }

// volatile: the host compiler may not fuse what the kernels keep apart.
inline float __fdividef(float a, float b) { return a / b; }
inline float __expf(float v) { return expf(v); }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fmul_rn(float a, float b) {
  volatile float v = a * b;
  return v;
}
inline float __fadd_rn(float a, float b) {
  volatile float v = a + b;
  return v;
}
inline float __fsub_rn(float a, float b) {
  volatile float v = a - b;
  return v;
}
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
  uint64_t bytes = static_cast<uint64_t>(y) << 32 | x;
  unsigned out = 0;
  for (int i = 0; i < 4; i++) {
    out |= static_cast<unsigned>(bytes >> 8 * (selector >> 4 * i & 7) & 0xff) << 8 * i;
  }
  return out;
}
inline int __clzll(unsigned long long v) { return v ? __builtin_clzll(v) : 64; }
inline int __ffs(unsigned v) { return __builtin_ffs(v); }
inline int __popc(unsigned v) { return __builtin_popcount(v); }
inline float rsqrtf(float v) { return 1.0f / sqrtf(v); }
template <typename A, typename B>
inline auto min(A a, B b) -> decltype(a + b) {
  decltype(a + b) x = a, y = b;
  return x < y ? x : y;
}
template <typename A, typename B>
inline auto max(A a, B b) -> decltype(a + b) {
  decltype(a + b) x = a, y = b;
  return x > y ? x : y;
}
template <typename T>
inline T atomicAdd(T *p, T v) {
  T before = *p;
  *p = before + v;
  return before;
}

// A block's dynamic shared memory.
extern char *dynamic_shared;

void block_barrier();

// Of so many threads, which name the same ID, 1 to 15.
void part_barrier(int id, int threads);

// Lets other threads run until ready(at, than).
typedef bool (*Ready)(const void *at, uint64_t than);
void wait_until(Ready ready, const void *at, uint64_t than);

// Copies some turns from now, and says then that so many bytes came.
void copy_later(void *to, const void *from, int bytes, void *gate, void (*came)(void *, int));

// Gives `size` bytes and gets those of all lanes, one after another, valid until the next exchange
// but one. All 32 lanes take part.
const void *warp_exchange(const void *mine, size_t size);

inline void __syncthreads() { block_barrier(); }
inline void __syncwarp() {
  char nothing = 0;
  warp_exchange(&nothing, 1);
}
template <typename T>
inline T __shfl_xor_sync(unsigned, T v, int mask) {
  return static_cast<const T *>(warp_exchange(&v, sizeof v))[(threadIdx.x % 32) ^ mask];
}
template <typename T>
inline T __shfl_sync(unsigned, T v, int lane) {
  return static_cast<const T *>(warp_exchange(&v, sizeof v))[lane % 32];
}
template <typename T>
inline T __shfl_up_sync(unsigned, T v, int by) {
  const T *all = static_cast<const T *>(warp_exchange(&v, sizeof v));
  int lane = threadIdx.x % 32;
  return lane >= by ? all[lane - by] : v;
}
inline unsigned __ballot_sync(unsigned, bool v) {
  const bool *all = static_cast<const bool *>(warp_exchange(&v, sizeof v));
  unsigned lanes = 0;
  for (int i = 0; i < 32; i++) {
    lanes |= all[i] ? 1u << i : 0;
  }
  return lanes;
}
inline bool __any_sync(unsigned all, bool v) { return __ballot_sync(all, v) != 0; }

// Copies that a thread has begun, by groups; the last group is open.
struct Copy {
  void *to;
  const void *from;
  bool there;
};
std::vector<std::vector<Copy>> &begun_copies();
