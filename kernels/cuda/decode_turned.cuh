// A decode that takes what the product of queries, keys and values left, and leaves what the layer
// behind it reads: for steps of whole sequences, and groups that one block takes.
#pragma once

#include "decode.cuh"
#include "decode_round.cuh"
#include "decode_turn.cuh"

template <typename T>
struct Turned {
  Unturned<T> from;
  Rounding to;
  bf16 *out; // [rows][heads][D]; where rows are rounded by their own scales, on the way there
  int out_stride;

  template <int D>
  __device__ __forceinline__ const bf16 *queries(const Share<T> &share, bf16 *room) const {
    turn_and_store<D, DECODE_WARPS * WARP>(from, share.row, share.cache.kv_head,
                                           share.cache.kv_heads, share.group, room);
    __syncthreads(); // the key and the value too: copies into shared memory read them
    return room;
  }

  __device__ __forceinline__ void loaded() const { __syncthreads(); }

  template <int D>
  __device__ __forceinline__ void put(const Share<T> &share, int i, float value, float,
                                      float) const {
    if (to.out != nullptr && to.fixed > 0.0f) {
      bf16 kept = __float2bfloat16_rn(value);
      size_t row = share.row * share.cache.kv_heads * share.group * D;
      to.out[row + share.head * D + i] = to_e4m3(__bfloat162float(kept) * (1.0f / to.fixed));
    } else {
      store(out + share.row * out_stride + share.head * D, i, value);
    }
  }

  template <int D>
  __device__ __forceinline__ void end(const Share<T> &share) const {
    if (to.out != nullptr && to.fixed == 0.0f) {
      round_by_last(to, out + share.row * out_stride, share.row,
                    share.cache.kv_heads * share.group * D, share.cache.kv_heads);
    }
  }
};

// Up to eight query heads a KV head, or up to 16 (TILES 2). stages: 2 or 3. MOST: blocks at once on a
// multiprocessor that there are to be registers for.
#define DECODE_TURNED(NAME, D, T, TILES, MOST)                                                    \
  extern "C" __global__ void __launch_bounds__(DECODE_WARPS *WARP, MOST) NAME(                    \
      const bf16 *q, const bf16 *k, const bf16 *v, const float *factors, const float *cos,        \
      const float *sin, const int *slots, T *keys, T *values, bf16 *out, e4m3 *rounded,           \
      float *scales, unsigned *counts, const int *query_start, const int *context_length,         \
      const int *block_table, const int *item_sequence, const int *item_from, const int *item_to, \
      int max_blocks, int kv_heads, int group, int q_stride, int out_stride, int kv_stride,       \
      float scale, float factor, float key_inverse, float value_inverse, float fixed,             \
      int stages) {                                                                               \
    extern __shared__ __align__(16) bf16 memory[];                                                \
    Turned<T> way = {{q, k, v, factors, cos, sin, slots, keys, values, q_stride, kv_stride,       \
                      key_inverse, value_inverse},                                                \
                     {rounded, scales, counts, fixed},                                            \
                     out,                                                                         \
                     out_stride};                                                                 \
    decode_in<D, T, TILES>(stages, memory, way, static_cast<const T *>(keys),                     \
                           static_cast<const T *>(values), query_start, context_length,           \
                           block_table, item_sequence, item_from, item_to, max_blocks, kv_heads,  \
                           group, scale, factor);                                                 \
  }
