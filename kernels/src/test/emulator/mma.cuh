// The emulated counterpart of kernels/cuda/mma.cuh.
#pragma once

#include "cuda_fp16.h"
#include "element.cuh"

inline void require(bool holds, const char *what) {
  if (!holds) {
    fprintf(stderr, "emulator: %s\n", what);
    abort();
  }
}

inline float half_of(uint32_t pair, int which) {
  return __bfloat162float({static_cast<uint16_t>(pair >> 16 * which)});
}

inline float ieee_half_of(uint32_t pair, int which) {
  return __half2float(__half(static_cast<uint16_t>(pair >> 16 * which)));
}

// Number (row, k) of A is in lane row % 8 * 4 + k % 8 / 2, (k, column) of B in column * 4 + k % 8 / 2.
template <typename Half>
inline void mma_of(Half half_of, float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  struct Held {
    float a[4][2], b[2][2];
  } mine;
  for (int j = 0; j < 2; j++) {
    for (int i = 0; i < 4; i++) {
      mine.a[i][j] = half_of(a[i], j);
    }
    mine.b[0][j] = half_of(b0, j);
    mine.b[1][j] = half_of(b1, j);
  }
  const Held *all = static_cast<const Held *>(warp_exchange(&mine, sizeof mine));
  int lane = threadIdx.x % 32;
  for (int i = 0; i < 4; i++) {
    const Held *x = all + lane / 4 * 4;
    const Held *y = all + (lane % 4 * 2 + i % 2) * 4;
    for (int k = 0; k < 16; k++) {
      c[i] += x[k % 8 / 2].a[i / 2 + 2 * (k >= 8)][k % 2] * y[k % 8 / 2].b[k >= 8][k % 2];
    }
  }
}

inline void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  mma_of(half_of, c, a, b0, b1);
}
inline void mma_half(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  mma_of(ieee_half_of, c, a, b0, b1);
}

inline void load(uint32_t (&r)[4], const void *row, bool transposed) {
  const uint16_t *const *rows =
      static_cast<const uint16_t *const *>(warp_exchange(&row, sizeof row));
  int lane = threadIdx.x % 32;
  for (int matrix = 0; matrix < 4; matrix++) {
    uint32_t pair[2];
    for (int i = 0; i < 2; i++) {
      const uint16_t *from = rows[matrix * 8 + (transposed ? lane % 4 * 2 + i : lane / 4)];
      require(reinterpret_cast<uintptr_t>(from) % 16 == 0, "ldmatrix of a misaligned row");
      pair[i] = from[transposed ? lane / 4 : lane % 4 * 2 + i];
    }
    r[matrix] = pair[0] | pair[1] << 16;
  }
  __syncwarp();
}

inline void load_matrices(uint32_t (&r)[4], const void *row) { load(r, row, false); }
inline void load_transposed(uint32_t (&r)[4], const void *row) { load(r, row, true); }

// Row lane / 4, columns lane % 4 * 2 on.
inline uint32_t transposed(uint32_t pair) {
  const uint32_t *all = static_cast<const uint32_t *>(warp_exchange(&pair, sizeof pair));
  int lane = threadIdx.x % 32;
  int column = lane / 4;
  uint32_t r = 0;
  for (int i = 0; i < 2; i++) {
    int row = lane % 4 * 2 + i;
    r |= (all[row * 4 + column / 2] >> 16 * (column % 2) & 0xffff) << 16 * i;
  }
  __syncwarp();
  return r;
}

// Happens when it is waited for, not before.
inline void copy_async(void *to, const void *from, bool there) {
  require(reinterpret_cast<uintptr_t>(to) % 16 == 0, "asynchronous copy to a misaligned address");
  require(reinterpret_cast<uintptr_t>(from) % 16 == 0, "asynchronous copy from one");
  begun_copies().back().push_back({to, from, there});
}

inline void commit_copies() { begun_copies().emplace_back(); }

template <int left>
inline void await_copies() {
  auto &groups = begun_copies();
  while (groups.size() > left + 1) {
    for (const Copy &copy : groups.front()) {
      if (copy.there) {
        memcpy(copy.to, copy.from, 16);
      } else {
        memset(copy.to, 0, 16);
      }
    }
    groups.erase(groups.begin());
  }
}

inline uint32_t pack(float low, float high) {
  return bits_as<uint32_t>(__floats2bfloat162_rn(low, high));
}

inline uint32_t pack_half(float low, float high) {
  return bits_as<uint16_t>(static_cast<_Float16>(low)) |
         static_cast<uint32_t>(bits_as<uint16_t>(static_cast<_Float16>(high))) << 16;
}

inline float power_of_two(float x) { return exp2f(x); }
