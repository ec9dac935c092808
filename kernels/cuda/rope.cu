// Rotary position embedding, and the way of keys and values into the paged cache.
//
// A layer's keys, and likewise its values, lie as [block][kvHead][16 tokens][headDim]: what one head
// keeps of a block is contiguous.

#include "fp8.cuh"
#include "overlap.cuh"

constexpr int BLOCK_TOKENS = 16;

__device__ __forceinline__ void keep8(bf16 *p, float (&v)[VECTOR], float) { store8(p, v); }

__device__ __forceinline__ void keep8(e4m3 *p, float (&v)[VECTOR], float inverse) {
#pragma unroll
  for (int i = 0; i < VECTOR; i++) {
    v[i] *= inverse;
  }
  store8(p, v);
}

// Turns eight pairs of a head, (j..j+7) and (half+j..half+j+7), times `factor`. T: bf16, or e4m3,
// whose numbers are multiplied by `inverse` too.
template <typename T>
__device__ __forceinline__ void turn(const bf16 *head, const float *cos, const float *sin, int half,
                                     int j, T *out, float factor, float inverse) {
  float low[VECTOR], high[VECTOR], c[VECTOR], s[VECTOR];
  load8(head + j, low);
  load8(head + half + j, high);
  load8(cos + j, c);
  load8(sin + j, s);
#pragma unroll
  for (int i = 0; i < VECTOR; i++) {
    float x = low[i] * factor, y = high[i] * factor;
    low[i] = x * c[i] - y * s[i];
    high[i] = y * c[i] + x * s[i];
  }
  keep8(out + j, low, inverse);
  keep8(out + half + j, high, inverse);
}

// One block a token. q: turned in place; k turned and v as it is: to the token's slot. A slot of -1
// is that of a row that is no token. factors: what a product left to multiply rows of all three by,
// or null.
template <typename T>
__device__ __forceinline__ void store_turned(bf16 *q, const bf16 *k, const bf16 *v,
                                             const float *factors, const float *cos,
                                             const float *sin, const int *slots, T *keys,
                                             T *values, int heads, int kv_heads, int head_dim,
                                             int q_stride, int kv_stride, float key_inverse,
                                             float value_inverse) {
  admit_next();
  await_previous();
  size_t token = blockIdx.x;
  int slot = slots[token];
  if (slot < 0) {
    return;
  }
  float factor = factors == nullptr ? 1.0f : factors[token];
  int half = head_dim / 2;
  int parts = half / VECTOR;
  const float *c = cos + token * half;
  const float *s = sin + token * half;
  q += token * q_stride;
  k += token * kv_stride;
  v += token * kv_stride;
  int block = slot / BLOCK_TOKENS;
  int in_block = slot % BLOCK_TOKENS;
  int q_units = heads * parts;
  int k_units = kv_heads * parts;
  for (int unit = threadIdx.x; unit < q_units + 2 * k_units; unit += blockDim.x) {
    if (unit < q_units) {
      bf16 *head = q + unit / parts * head_dim;
      turn(head, c, s, half, unit % parts * VECTOR, head, factor, 1.0f);
      continue;
    }
    int index = (unit - q_units) % k_units;
    int head = index / parts;
    int j = index % parts * VECTOR;
    size_t to = ((static_cast<size_t>(block) * kv_heads + head) * BLOCK_TOKENS + in_block) * head_dim;
    if (unit < q_units + k_units) {
      turn(k + head * head_dim, c, s, half, j, keys + to, factor, key_inverse);
    } else {
      const bf16 *from = v + head * head_dim;
      float low[VECTOR], high[VECTOR];
      load8(from + j, low);
      load8(from + half + j, high);
#pragma unroll
      for (int i = 0; i < VECTOR; i++) {
        low[i] *= factor;
        high[i] *= factor;
      }
      keep8(values + to + j, low, value_inverse);
      keep8(values + to + half + j, high, value_inverse);
    }
  }
}

extern "C" __global__ void rope_store(bf16 *q, const bf16 *k, const bf16 *v,
                                      const float *factors, const float *cos, const float *sin,
                                      const int *slots, bf16 *keys, bf16 *values, int heads,
                                      int kv_heads, int head_dim, int q_stride, int kv_stride) {
  store_turned(q, k, v, factors, cos, sin, slots, keys, values, heads, kv_heads, head_dim, q_stride,
               kv_stride, 1.0f, 1.0f);
}

// The same to a cache of e4m3; keys and values are multiplied by the inverses of their scales.
extern "C" __global__ void rope_store_fp8(bf16 *q, const bf16 *k, const bf16 *v,
                                          const float *factors, const float *cos, const float *sin,
                                          const int *slots, e4m3 *keys, e4m3 *values, int heads,
                                          int kv_heads, int head_dim, int q_stride, int kv_stride,
                                          float key_inverse, float value_inverse) {
  store_turned(q, k, v, factors, cos, sin, slots, keys, values, heads, kv_heads, head_dim, q_stride,
               kv_stride, key_inverse, value_inverse);
}
