// The softmax of prefill in e4m3 (attention_e4m3_sm90.cu): weights that products of e4m3 take, each
// tile's beside its own largest scores, and sums over tiles.
#pragma once

#include "fp8.cuh"
#include "prefill_sm90.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

constexpr int D = 128;

// Of what is summed: D numbers of a value, and eight ones.
constexpr int SUMS = D / 2 + 4; // a thread's

// A tile's weights are at most 2^LIFT: the largest power of two that e4m3 has, and small ones keep
// their digits.
constexpr int LIFT = 8;

// Less than any product of D numbers of e4m3, whose largest is 448.
constexpr float LEAST = -33554432.0f;

// Sums are beside one of a row's scores until a tile has one that is more than so many powers of two
// above. A float has room for more by far, and mostly nothing but additions changes sums.
constexpr float MOST_RISE = 32.0f;

// In the order of positions of a tile of values.
__device__ __forceinline__ void pack_weights(uint32_t (&p)[KEYS / 8], const float (&s)[KEYS / 2]) {
#pragma unroll
  for (int i = 0; i < KEYS / 8; i++) {
    const float *from = s + i / 2 * 8 + i % 2 * 2;
    p[i] = to_e4m3x4(from[0], from[1], from[4], from[5]);
  }
}

// From products to weights times 2^LIFT, beside a row's largest in the tile, times scale, which are
// returned. A row that sees nothing of the tile has weights of 0.
__device__ __forceinline__ float2 weigh(float (&s)[KEYS / 2], const float (&scale)[2]) {
  float tops[2];
#pragma unroll
  for (int r = 0; r < 2; r++) {
    tops[r] = fmaf(fmaxf(largest(s, r), LEAST), scale[r], -LIFT);
#pragma unroll
    for (int i = 0; i < KEYS / 8; i++) {
      float &low = s[4 * i + 2 * r];
      float &high = s[4 * i + 2 * r + 1];
      low = power_of_two(fmaf(low, scale[r], -tops[r]));
      high = power_of_two(fmaf(high, scale[r], -tops[r]));
    }
  }
  return make_float2(tops[0], tops[1]);
}

// Multiplies both rows' numbers.
__device__ __forceinline__ void scale_rows(float (&sums)[SUMS], float2 by) {
#pragma unroll
  for (int i = 0; i < SUMS; i++) {
    sums[i] *= i / 2 % 2 == 0 ? by.x : by.y;
  }
}

// What a tile's sums, beside what weigh returned, are to be multiplied by to be beside base, which a
// row's sums are. Where the tile's is far above that it takes its place; before: what the sums of the
// tile before are to be multiplied by, which are still to be added.
__device__ __forceinline__ float2 place_beside(float2 &base, float2 tops, float (&sums)[SUMS],
                                               float2 &before) {
  float2 rise = make_float2(tops.x - base.x, tops.y - base.y);
  if (__any_sync(ALL, fmaxf(rise.x, rise.y) > MOST_RISE)) {
    float2 shrink = make_float2(1.0f, 1.0f);
    if (rise.x > MOST_RISE) {
      shrink.x = power_of_two(-rise.x);
      base.x = tops.x;
      rise.x = 0.0f;
    }
    if (rise.y > MOST_RISE) {
      shrink.y = power_of_two(-rise.y);
      base.y = tops.y;
      rise.y = 0.0f;
    }
    scale_rows(sums, shrink);
    before = make_float2(before.x * shrink.x, before.y * shrink.y);
  }
  return make_float2(power_of_two(rise.x), power_of_two(rise.y));
}

// Adds a tile's sums, times what place_beside says, to those before it.
__device__ __forceinline__ void fold(float (&sums)[SUMS], const float (&part)[SUMS],
                                     float2 times) {
#pragma unroll
  for (int i = 0; i < SUMS; i++) {
    sums[i] = fmaf(part[i], i / 2 % 2 == 0 ? times.x : times.y, sums[i]);
  }
}

#endif
