// The beginning of a decode's block that does without a kernel for rotary embedding: the block of a
// sequence and KV head turns that head's queries itself, and stores the new key and value, which it
// alone reads.
#pragma once

#include "attention.cuh"
#include "turn.cuh"

// What a product left of a step's tokens, [tokens][heads][D] each, and where keys and values go.
// T: bf16 or e4m3.
template <typename T>
struct Unturned {
  const bf16 *q;
  const bf16 *k;
  const bf16 *v;
  const float *factors; // [tokens], what rows are to be multiplied by; null: nothing
  const float *cos;     // [tokens][D / 2]
  const float *sin;
  const int *slots; // [tokens]; -1: no such token, nothing is stored
  T *keys;
  T *values;
  int q_stride;
  int kv_stride;
  float key_inverse; // what e4m3 is multiplied by
  float value_inverse;
};

// queries: [group][D], the turned queries of the KV head. All threads of a block take part, and wait
// for each other afterwards. Bits are those of rope_store.
template <int D, int THREADS, typename T>
__device__ __forceinline__ void turn_and_store(const Unturned<T> &from, size_t token, int kv_head,
                                               int kv_heads, int group, bf16 *queries) {
  constexpr int HALF = D / 2;
  constexpr int PARTS = HALF / VECTOR;
  float factor = from.factors == nullptr ? 1.0f : from.factors[token];
  int slot = from.slots[token];
  const float *cos = from.cos + token * HALF;
  const float *sin = from.sin + token * HALF;
  size_t to = ((static_cast<size_t>(slot / BLOCK_TOKENS) * kv_heads + kv_head) * BLOCK_TOKENS +
               slot % BLOCK_TOKENS) * D;
  for (int unit = threadIdx.x; unit < (group + 2) * PARTS; unit += THREADS) {
    int head = unit / PARTS;
    int j = unit % PARTS * VECTOR;
    if (head < group) {
      size_t which = static_cast<size_t>(kv_head) * group + head;
      turn(from.q + token * from.q_stride + which * D, cos, sin, HALF, j, queries + head * D,
           factor, 1.0f);
    } else if (slot >= 0) {
      size_t at = token * from.kv_stride + static_cast<size_t>(kv_head) * D;
      if (head == group) {
        turn(from.k + at, cos, sin, HALF, j, from.keys + to, factor, from.key_inverse);
      } else {
        carry(from.v + at, HALF, j, from.values + to, factor, from.value_inverse);
      }
    }
  }
}
