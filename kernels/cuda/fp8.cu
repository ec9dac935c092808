// Rows of activations rounded to e4m3, in the same go as what makes them, and FP8 weights from and
// to other formats.
//
// A row is divided by a scale before it is rounded: by one that the weights bring along (fixed
// above 0), or by that which takes its largest number to the largest of e4m3 (fixed is 0), which is
// left in scales[row]. Either way a row depends on itself alone.

#include "block.cuh"
#include "fp8.cuh"
#include "overlap.cuh"

// Vectors of a row that a thread keeps in registers; longer rows are made twice.
constexpr int KEPT = 4;

__device__ __forceinline__ float largest_of(const float (&v)[VECTOR], float largest) {
#pragma unroll
  for (int j = 0; j < VECTOR; j++) {
    largest = fmaxf(largest, fabsf(v[j]));
  }
  return largest;
}

__device__ __forceinline__ void put(e4m3 *out, float (&v)[VECTOR], float inverse) {
#pragma unroll
  for (int j = 0; j < VECTOR; j++) {
    v[j] *= inverse;
  }
  store8(out, v);
}

// make(i, v): the eight numbers from column i on, the same ones each time. Width: a multiple of 8.
template <typename Make>
__device__ __forceinline__ void round_row(int width, float fixed, float *scale, e4m3 *out,
                                          Make make) {
  __shared__ float scratch[WARP];
  int vectors = width / VECTOR;
  if (fixed > 0.0f) {
    float inverse = 1.0f / fixed;
    for (int i = threadIdx.x; i < vectors; i += blockDim.x) {
      float v[VECTOR];
      make(i * VECTOR, v);
      put(out + i * VECTOR, v, inverse);
    }
    return;
  }
  auto larger = [](float a, float b) { return fmaxf(a, b); };
  if (vectors <= KEPT * static_cast<int>(blockDim.x)) {
    float kept[KEPT][VECTOR];
    float largest = 0.0f;
#pragma unroll
    for (int k = 0; k < KEPT; k++) {
      int i = threadIdx.x + k * blockDim.x;
      if (i < vectors) {
        make(i * VECTOR, kept[k]);
        largest = largest_of(kept[k], largest);
      }
    }
    float s = e4m3_scale(block_reduce(largest, scratch, 0.0f, larger));
#pragma unroll
    for (int k = 0; k < KEPT; k++) {
      int i = threadIdx.x + k * blockDim.x;
      if (i < vectors) {
        put(out + i * VECTOR, kept[k], 1.0f / s);
      }
    }
    if (threadIdx.x == 0) {
      *scale = s;
    }
    return;
  }
  float largest = 0.0f;
  for (int i = threadIdx.x; i < vectors; i += blockDim.x) {
    float v[VECTOR];
    make(i * VECTOR, v);
    largest = largest_of(v, largest);
  }
  float s = e4m3_scale(block_reduce(largest, scratch, 0.0f, larger));
  for (int i = threadIdx.x; i < vectors; i += blockDim.x) {
    float v[VECTOR];
    make(i * VECTOR, v);
    put(out + i * VECTOR, v, 1.0f / s);
  }
  if (threadIdx.x == 0) {
    *scale = s;
  }
}

// out[row] = x[row], rounded. One block a row, here and below.
extern "C" __global__ void round_rows(const bf16 *x, e4m3 *out, float *scales, int width,
                                      int x_stride, float fixed) {
  admit_next();
  await_previous();
  size_t row = blockIdx.x;
  const bf16 *from = x + row * x_stride;
  round_row(width, fixed, scales + row, out + row * width,
            [=](int i, float(&v)[VECTOR]) { load8(from + i, v); });
}

// Adds up part(i) over vectors i of a row, in an order that their number alone determines, not that
// of threads: those of 32 vectors that follow one another first. Longer rows than that allows have
// as many threads always.
template <typename Part>
__device__ __forceinline__ float sum_of_vectors(int vectors, Part part) {
  __shared__ float scratch[WARP];
  auto add = [](float a, float b) { return a + b; };
  if (vectors > WARP * WARP) {
    float sum = 0.0f;
    for (int i = threadIdx.x; i < vectors; i += blockDim.x) {
      sum += part(i);
    }
    return block_reduce(sum, scratch, 0.0f, add);
  }
  int warps = (vectors + WARP - 1) / WARP;
  for (int i = threadIdx.x; i < warps * WARP; i += blockDim.x) {
    float sum = warp_reduce(i < vectors ? part(i) : 0.0f, add);
    if (i % WARP == 0) {
      scratch[i / WARP] = sum;
    }
  }
  __syncthreads();
  int lane = threadIdx.x % WARP;
  return warp_reduce(lane < warps ? scratch[lane] : 0.0f, add);
}

// What a product left to multiply a row by; null: nothing. Read before the block leaves its own scale
// of the row, which may be in the same place.
__device__ __forceinline__ float factor_of(const float *factors, size_t row) {
  return factors == nullptr ? 1.0f : factors[row];
}

// Root-mean-square norm of rows x, rounded. With ADD x += y * factor first, and the norm is that of
// the sum as it is stored.
template <bool ADD>
__device__ void norm_rounded(bf16 *x, const bf16 *y, const float *factors, const float *weight,
                             e4m3 *out, float *scales, int width, float epsilon, float fixed) {
  admit_next();
  await_previous();
  size_t row = blockIdx.x;
  float factor = ADD ? factor_of(factors, row) : 1.0f;
  bf16 *from = x + row * width;
  const bf16 *more = ADD ? y + row * width : nullptr;
  auto squares_of = [=](int i) {
    float v[VECTOR], squares = 0.0f;
    load8(from + i * VECTOR, v);
    if (ADD) {
      float other[VECTOR];
      load8(more + i * VECTOR, other);
#pragma unroll
      for (int j = 0; j < VECTOR; j++) {
        v[j] += other[j] * factor;
      }
      round8(v);
      store8(from + i * VECTOR, v);
    }
#pragma unroll
    for (int j = 0; j < VECTOR; j++) {
      squares += v[j] * v[j];
    }
    return squares;
  };
  float sum = sum_of_vectors(width / VECTOR, squares_of);
  float scale = rsqrtf(sum / width + epsilon);
  // Each thread reads back what it wrote, or what is in the cache from above.
  round_row(width, fixed, scales + row, out + row * width, [=](int i, float(&v)[VECTOR]) {
    float w[VECTOR];
    load8(from + i, v);
    load8(weight + i, w);
#pragma unroll
    for (int j = 0; j < VECTOR; j++) {
      v[j] *= scale * w[j];
    }
  });
}

extern "C" __global__ void rms_norm_rounded(bf16 *x, const float *weight, e4m3 *out, float *scales,
                                            int width, float epsilon, float fixed) {
  norm_rounded<false>(x, nullptr, nullptr, weight, out, scales, width, epsilon, fixed);
}

extern "C" __global__ void add_rms_norm_rounded(bf16 *x, const bf16 *y, const float *factors,
                                                const float *weight, e4m3 *out, float *scales,
                                                int width, float epsilon, float fixed) {
  norm_rounded<true>(x, y, factors, weight, out, scales, width, epsilon, fixed);
}

// out[row] = silu(gate[row] * factor) * up[row] * factor, rounded once. The fast forms err by a few
// units of the last place of a float.
extern "C" __global__ void silu_mul_rounded(const bf16 *gate, const bf16 *up, const float *factors,
                                            e4m3 *out, float *scales, int width, int gate_stride,
                                            int up_stride, float fixed) {
  admit_next();
  await_previous();
  size_t row = blockIdx.x;
  float factor = factor_of(factors, row);
  const bf16 *g = gate + row * gate_stride;
  const bf16 *u = up + row * up_stride;
  round_row(width, fixed, scales + row, out + row * width, [=](int i, float(&v)[VECTOR]) {
    float other[VECTOR];
    load8(g + i, v);
    load8(u + i, other);
#pragma unroll
    for (int j = 0; j < VECTOR; j++) {
      float g = v[j] * factor;
      v[j] = silu(g) * (other[j] * factor);
    }
  });
}

// x[row] *= scales[row]: what a product leaves to do, where what reads it does not. Grid: [columns in
// stretches of 256 vectors][rows, or fewer and each takes several].
extern "C" __global__ void scale_rows(bf16 *x, const float *scales, int rows, int width, int stride) {
  admit_next();
  await_previous();
  int i = (blockIdx.x * blockDim.x + threadIdx.x) * VECTOR;
  for (int row = blockIdx.y; i < width && row < rows; row += gridDim.y) {
    bf16 *at = x + static_cast<size_t>(row) * stride + i;
    float v[VECTOR];
    load8(at, v);
#pragma unroll
    for (int j = 0; j < VECTOR; j++) {
      v[j] *= scales[row];
    }
    store8(at, v);
  }
}

// out = in * scale.
extern "C" __global__ void widen_e4m3(const e4m3 *in, bf16 *out, long long count, float scale) {
  long long step = static_cast<long long>(gridDim.x) * blockDim.x;
  for (long long i = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x; i < count;
       i += step) {
    store(out, i, from_e4m3(in[i]) * scale);
  }
}

// Made-up numbers, spread evenly over [-448, 448): the same that the Java class RandomNumbers makes
// of the seed.
extern "C" __global__ void random_e4m3(e4m3 *out, long long count, unsigned long long seed) {
  long long step = static_cast<long long>(gridDim.x) * blockDim.x;
  for (long long i = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x; i < count;
       i += step) {
    unsigned long long z = seed + (static_cast<unsigned long long>(i) + 1) * 0x9E3779B97F4A7C15ull;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    z ^= z >> 31;
    out[i] = to_e4m3(static_cast<float>(static_cast<long long>(z) >> 40) * 0x1p-23f * E4M3_MAX);
  }
}
