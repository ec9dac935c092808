// What the kernels of attention over the paged cache share.
//
// The query heads that share a KV head are of one matrix, so that what is read of the cache serves
// them all: its rows in a prefill, its columns in a decode (decode.cuh). Softmax is taken on the way,
// tile by tile, as in FlashAttention-2 (Dao, 2023): each row carries its largest score and its sum so
// far, and what was summed under a smaller largest score is scaled down. Scores are times log2(e), so
// that exp2 does for exp.
//
// A layer's keys, and likewise its values, lie as [block][kvHead][16 tokens][headDim].
#pragma once

#include "block.cuh"
#include "mma.cuh"

constexpr int BLOCK_TOKENS = 16;

template <bool HALF>
__device__ __forceinline__ void multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                         uint32_t b1) {
  if constexpr (HALF) {
    mma_half(c, a, b0, b1);
  } else {
    mma(c, a, b0, b1);
  }
}

template <bool HALF>
__device__ __forceinline__ uint32_t packed(float low, float high) {
  return HALF ? pack_half(low, high) : pack(low, high);
}

// T: bf16 or e4m3.
template <typename T>
struct Paged {
  const T *keys;
  const T *values;
  const int *blocks; // of the sequence
  int kv_heads;
  int kv_head;
};

// Where a token's numbers of one head begin.
template <int D, typename T>
__device__ __forceinline__ size_t place(const Paged<T> &cache, int position) {
  size_t block = cache.blocks[position / BLOCK_TOKENS];
  return ((block * cache.kv_heads + cache.kv_head) * BLOCK_TOKENS + position % BLOCK_TOKENS) * D;
}

// Rows in shared memory are an odd number of 16 bytes apart: eight of them meet no bank twice.
constexpr int PART_BYTES = 16;
template <int D, typename T = bf16>
constexpr int STRIDE = (D * static_cast<int>(sizeof(T)) / PART_BYTES | 1) * PART_BYTES / sizeof(T);

// Brings TOKENS positions from `from` on, those from `end` on as zeros: what an earlier sequence
// left there may be anything, and 0 times infinity is no number.
template <int D, int TOKENS, int THREADS, typename T>
__device__ __forceinline__ void fetch(const Paged<T> &cache, int from, int end, int thread, T *keys,
                                      T *values) {
  constexpr int PART = PART_BYTES / sizeof(T);
  constexpr int PARTS = D / PART;
  constexpr int COUNT = TOKENS * PARTS;
#pragma unroll
  for (int i = 0; i < (COUNT + THREADS - 1) / THREADS; i++) {
    int unit = thread + i * THREADS;
    if (COUNT % THREADS == 0 || unit < COUNT) {
      int token = unit / PARTS;
      int part = unit % PARTS * PART;
      bool there = from + token < end;
      size_t at = place<D>(cache, there ? from + token : from) + part;
      copy_async(keys + token * STRIDE<D, T> + part, cache.keys + at, there);
      copy_async(values + token * STRIDE<D, T> + part, cache.values + at, there);
    }
  }
}

// Softmax of 16 rows on the way: a warp's share of scores and sums.
template <int D>
struct Sums {
  float out[D / 8][4];
  float largest[2]; // rows g and g + 8
  float sum[2];     // this thread's columns alone

  __device__ __forceinline__ void begin() {
#pragma unroll
    for (int n = 0; n < D / 8; n++) {
      out[n][0] = out[n][1] = out[n][2] = out[n][3] = 0.0f;
    }
    largest[0] = largest[1] = -INFINITY;
    sum[0] = sum[1] = 0.0f;
  }

  // From products to weights, of positions `from` on. Row g sees those up to last0, row g + 8 up to
  // last1; with MASK false the caller knows that both see all.
  template <int TOKENS, bool MASK>
  __device__ __forceinline__ void weigh(float (&s)[TOKENS / 8][4], int from, int last0, int last1,
                                        float scale) {
    int t = threadIdx.x % 4;
    float top0 = -INFINITY, top1 = -INFINITY;
#pragma unroll
    for (int j = 0; j < TOKENS / 8; j++) {
#pragma unroll
      for (int e = 0; e < 2; e++) {
        int position = from + j * 8 + 2 * t + e;
        s[j][e] = MASK && position > last0 ? -INFINITY : s[j][e] * scale;
        s[j][2 + e] = MASK && position > last1 ? -INFINITY : s[j][2 + e] * scale;
        top0 = fmaxf(top0, s[j][e]);
        top1 = fmaxf(top1, s[j][2 + e]);
      }
    }
    float base0 = raise(0, top0);
    float base1 = raise(1, top1);
#pragma unroll
    for (int j = 0; j < TOKENS / 8; j++) {
      s[j][0] = power_of_two(s[j][0] - base0);
      s[j][1] = power_of_two(s[j][1] - base0);
      s[j][2] = power_of_two(s[j][2] - base1);
      s[j][3] = power_of_two(s[j][3] - base1);
      sum[0] += s[j][0] + s[j][1];
      sum[1] += s[j][2] + s[j][3];
    }
  }

  // A row's largest score so far; scales down what was summed under the one before. Returns what
  // scores are taken relative to, which is 0 as long as the row has seen none.
  __device__ __forceinline__ float raise(int row, float top) {
    top = fmaxf(top, __shfl_xor_sync(ALL, top, 1));
    top = fmaxf(top, __shfl_xor_sync(ALL, top, 2));
    float before = largest[row];
    float now = fmaxf(before, top);
    largest[row] = now;
    float base = now == -INFINITY ? 0.0f : now;
    float shrink = exp2f(before - base);
    sum[row] *= shrink;
#pragma unroll
    for (int n = 0; n < D / 8; n++) {
      out[n][2 * row] *= shrink;
      out[n][2 * row + 1] *= shrink;
    }
    return base;
  }

  __device__ __forceinline__ float total(int row) {
    float all = sum[row];
    all += __shfl_xor_sync(ALL, all, 1);
    all += __shfl_xor_sync(ALL, all, 2);
    return all;
  }
};

// What a warp holds of 16 rows. HALF: numbers are IEEE halves, else bf16.
template <int D, bool HALF = false>
struct Rows : Sums<D> {
  uint32_t q[D / 16][4];

  static __device__ __forceinline__ uint32_t two(const bf16 *p) {
    if (p == nullptr) {
      return 0;
    }
    return HALF ? pack_half(load(p, 0), load(p, 1)) : *reinterpret_cast<const uint32_t *>(p);
  }

  // q0, q1: the heads of rows g and g + 8, null where there is no such row.
  __device__ __forceinline__ void begin(const bf16 *q0, const bf16 *q1) {
    int t = threadIdx.x % 4;
#pragma unroll
    for (int k = 0; k < D / 16; k++) {
      int column = k * 16 + 2 * t;
      q[k][0] = two(q0 ? q0 + column : nullptr);
      q[k][1] = two(q1 ? q1 + column : nullptr);
      q[k][2] = two(q0 ? q0 + column + 8 : nullptr);
      q[k][3] = two(q1 ? q1 + column + 8 : nullptr);
    }
    Sums<D>::begin();
  }

  // Takes TOKENS positions from `from` on, as weigh() says. Keys and values are two bytes each.
  template <int TOKENS, bool MASK>
  __device__ __forceinline__ void attend(const bf16 *keys, const bf16 *values, int from, int last0,
                                         int last1, float scale) {
    int lane = threadIdx.x % WARP;
    float s[TOKENS / 8][4];
#pragma unroll
    for (int j = 0; j < TOKENS / 8; j++) {
      s[j][0] = s[j][1] = s[j][2] = s[j][3] = 0.0f;
    }
#pragma unroll
    for (int k = 0; k < D / 16; k++) {
#pragma unroll
      for (int j = 0; j < TOKENS / 8; j += 2) {
        uint32_t b[4];
        int token = j * 8 + lane / 16 * 8 + lane % 8;
        load_matrices(b, keys + token * STRIDE<D> + k * 16 + lane / 8 % 2 * 8);
        multiply<HALF>(s[j], q[k], b[0], b[1]);
        multiply<HALF>(s[j + 1], q[k], b[2], b[3]);
      }
    }
    this->template weigh<TOKENS, MASK>(s, from, last0, last1, scale);
#pragma unroll
    for (int k = 0; k < TOKENS / 16; k++) {
      // The scores lie as C does; two of them side by side lie as A does.
      uint32_t p[4] = {packed<HALF>(s[2 * k][0], s[2 * k][1]), packed<HALF>(s[2 * k][2], s[2 * k][3]),
                       packed<HALF>(s[2 * k + 1][0], s[2 * k + 1][1]),
                       packed<HALF>(s[2 * k + 1][2], s[2 * k + 1][3])};
#pragma unroll
      for (int n = 0; n < D / 8; n += 2) {
        uint32_t b[4];
        int token = k * 16 + lane % 16;
        load_transposed(b, values + token * STRIDE<D> + n * 8 + lane / 16 * 8);
        multiply<HALF>(this->out[n], p, b[0], b[1]);
        multiply<HALF>(this->out[n + 1], p, b[2], b[3]);
      }
    }
  }
};
