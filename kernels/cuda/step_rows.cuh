// How a product's inputs come into shared memory: norms of the residual, or rows that other blocks made.
#pragma once

#include "step_products.cuh"

#ifdef BULK_COPIES

__device__ __forceinline__ uint32_t two_halves(float low, float high, float inverse) {
  return halves(to_e4m3x2(low * inverse, high * inverse));
}

// Eight numbers as the crew multiplies them: bfloat16, or halves of what e4m3 keeps of them.
template <typename W>
__device__ __forceinline__ void keep8(char *row, int vector, const float (&v)[VECTOR],
                                      float inverse) {
  uint4 raw;
  if (sizeof(W) == 1) {
    raw = make_uint4(two_halves(v[0], v[1], inverse), two_halves(v[2], v[3], inverse),
                     two_halves(v[4], v[5], inverse), two_halves(v[6], v[7], inverse));
  } else {
    raw = make_uint4(pack(v[0], v[1]), pack(v[2], v[3]), pack(v[4], v[5]), pack(v[6], v[7]));
  }
  *reinterpret_cast<uint4 *>(row + place_of<W>(vector)) = raw;
}

__device__ __forceinline__ const uint4 *vectors_of(const bf16 *rows, int row, int width) {
  return reinterpret_cast<const uint4 *>(rows + static_cast<size_t>(row) * width);
}

// Which of x's rows a warp of the crew makes, and which of its vectors a thread.
struct OfRow {
  int row, first, step;
  __device__ __forceinline__ explicit OfRow(int rows) {
    int warp = threadIdx.x / WARP;
    int warps = rows == 1 ? CREW_WARPS : rows == 2 ? CREW_WARPS / 2 : rows <= 4 ? CREW_WARPS / 4 : 1;
    row = warp / warps;
    first = warp % warps * WARP + threadIdx.x % WARP;
    step = warps * WARP;
  }
};

// What a thread asks for at once of a row.
constexpr int BATCH = 4;

// Asks for what a norm multiplies by; it is there for all behind the next barrier.
__device__ __forceinline__ void ask_for_weight(const Step &s, const Block &b, const float *weight) {
  crew_barrier(); // x, which it may lie in, is read no more
  for (int i = 4 * threadIdx.x; i < s.hidden; i += 4 * CREW) {
    copy_async(b.norm + i, weight + i, true);
  }
  commit_copies();
}

// x = the root-mean-square norms of all rows of the state. fixed: as in Layer. What a thread does not
// keep of a row it reads twice.
template <typename W>
__device__ __forceinline__ void norm_rows(const Step &s, const Block &b, float fixed) {
  int warp = threadIdx.x / WARP;
  int vectors = s.hidden / VECTOR;
  OfRow of(s.rows);
  bool busy = of.row < s.rows;
  bool own_scale = sizeof(W) == 1 && fixed == 0.0f;
  const uint4 *row = vectors_of(s.state, of.row, s.hidden);
  uint4 kept[BATCH];
  float squares = 0.0f, largest = 0.0f;
  auto look = [&](const uint4 &raw, int i) {
    float v[VECTOR];
    load8(reinterpret_cast<const bf16 *>(&raw), v);
#pragma unroll
    for (int j = 0; j < VECTOR; j++) {
      squares += v[j] * v[j];
    }
    if (own_scale) {
      float w[VECTOR];
      load8(b.norm + i * VECTOR, w);
#pragma unroll
      for (int j = 0; j < VECTOR; j++) {
        largest = fmaxf(largest, fabsf(v[j] * w[j]));
      }
    }
  };
  auto each = [&](auto use) {
#pragma unroll
    for (int k = 0; k < BATCH; k++) {
      if (of.first + k * of.step < vectors) {
        use(kept[k], of.first + k * of.step);
      }
    }
#pragma unroll 1
    for (int i = of.first + BATCH * of.step; i < vectors; i += of.step) {
      use(fresh(row + i), i);
    }
  };
  if (busy) {
#pragma unroll
    for (int k = 0; k < BATCH; k++) {
      if (of.first + k * of.step < vectors) {
        kept[k] = fresh(row + of.first + k * of.step);
      }
    }
    each(look);
  }
  squares = warp_reduce(squares, [](float a, float c) { return a + c; });
  largest = warp_reduce(largest, [](float a, float c) { return fmaxf(a, c); });
  if (of.step > WARP) {
    if (threadIdx.x % WARP == 0) {
      b.scratch[warp] = squares;
      b.scratch[CREW_WARPS + warp] = largest;
    }
    crew_barrier();
    int first = warp / (of.step / WARP) * (of.step / WARP);
    squares = 0.0f;
#pragma unroll
    for (int i = 0; i < CREW_WARPS; i++) {
      if (i < of.step / WARP) {
        squares += b.scratch[first + i];
        largest = fmaxf(largest, b.scratch[CREW_WARPS + first + i]);
      }
    }
  }
  if (busy) {
    float scale = rsqrtf(quotient(squares, static_cast<float>(s.hidden)) + s.epsilon);
    float divisor = 1.0f;
    if (sizeof(W) == 1) {
      divisor = own_scale ? e4m3_scale(largest * scale) : fixed;
      if (of.first == 0) {
        b.row_scales[of.row] = divisor;
      }
    }
    float inverse = quotient(1.0f, divisor);
    char *x = b.x + of.row * s.x_stride;
    each([&](const uint4 &raw, int i) {
      float v[VECTOR], w[VECTOR];
      load8(reinterpret_cast<const bf16 *>(&raw), v);
      load8(b.norm + i * VECTOR, w);
#pragma unroll
      for (int j = 0; j < VECTOR; j++) {
        v[j] *= scale * w[j];
      }
      keep8<W>(x, i, v, inverse);
    });
  }
  crew_barrier();
}

// x = columns [from, end) of rows that other blocks made. largest: of each row.
template <typename W>
__device__ __forceinline__ void take_rows(const Step &s, const Block &b, const bf16 *rows, int width,
                                          int from, int end, const float *largest, float fixed) {
  OfRow of(s.rows);
  if (of.row < s.rows) {
    float divisor = sizeof(W) > 1 ? 1.0f : fixed > 0.0f ? fixed : fresh(largest + of.row);
    const uint4 *row = vectors_of(rows, of.row, width) + from / VECTOR;
    int count = (end - from) / VECTOR;
    for (int first = of.first; first < count; first += BATCH * of.step) {
      uint4 raw[BATCH];
#pragma unroll
      for (int k = 0; k < BATCH; k++) {
        if (first + k * of.step < count) {
          raw[k] = fresh(row + first + k * of.step);
        }
      }
      if (first == of.first && sizeof(W) == 1) {
        divisor = fixed > 0.0f ? fixed : e4m3_scale(divisor); // only now: loads do not wait for it
        if (first == 0) {
          b.row_scales[of.row] = divisor;
        }
      }
      float inverse = quotient(1.0f, divisor);
#pragma unroll
      for (int k = 0; k < BATCH; k++) {
        if (first + k * of.step < count) {
          float v[VECTOR];
          load8(reinterpret_cast<const bf16 *>(&raw[k]), v);
          keep8<W>(b.x + of.row * s.x_stride, first + k * of.step, v, inverse);
        }
      }
    }
  }
  crew_barrier();
}

#endif
