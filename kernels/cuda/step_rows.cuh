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
constexpr int BATCH = 8;

// What a norm multiplies by; a thread's first numbers are there before the rows are.
struct NormWeight {
  static constexpr int HELD = 2;
  const float *all;
  float first[HELD][VECTOR];

  __device__ __forceinline__ NormWeight(const Step &s, const float *weight) : all(weight) {
    OfRow of(s.rows);
#pragma unroll
    for (int k = 0; k < HELD; k++) {
      int i = of.first + k * of.step;
      if (i < s.hidden / VECTOR) {
        load8(weight + i * VECTOR, first[k]);
      }
    }
  }

  // Of a thread's vector k, which is vector i of the row.
  __device__ __forceinline__ void take(int k, int i, float (&w)[VECTOR]) const {
    if (k < HELD) {
#pragma unroll
      for (int j = 0; j < VECTOR; j++) {
        w[j] = k == 0 ? first[0][j] : first[1][j];
      }
    } else {
      load8(all + i * VECTOR, w);
    }
  }
};

// x = the root-mean-square norms of all rows of the state. fixed: as in Layer. In between a row lies
// in x as it was, and each thread reads back what it wrote.
template <typename W>
__device__ __forceinline__ void norm_rows(const Step &s, const Block &b,
                                          const NormWeight &weight, float fixed) {
  int warp = threadIdx.x / WARP;
  int vectors = s.hidden / VECTOR;
  OfRow of(s.rows);
  bool busy = of.row < s.rows;
  bool own_scale = sizeof(W) == 1 && fixed == 0.0f;
  char *x = b.x + of.row * s.x_stride;
  float squares = 0.0f, largest = 0.0f;
  for (int first = busy ? of.first : vectors; first < vectors; first += BATCH * of.step) {
    const uint4 *from = vectors_of(s.state, of.row, s.hidden) + first;
    uint4 raw[BATCH];
#pragma unroll
    for (int k = 0; k < BATCH; k++) {
      if (first + k * of.step < vectors) {
        raw[k] = fresh(from + k * of.step);
      }
    }
#pragma unroll
    for (int k = 0; k < BATCH; k++) {
      int i = first + k * of.step;
      if (i < vectors) {
        *reinterpret_cast<uint4 *>(x + place_of<W>(i)) = raw[k];
        float v[VECTOR];
        load8(reinterpret_cast<const bf16 *>(&raw[k]), v);
#pragma unroll
        for (int j = 0; j < VECTOR; j++) {
          squares += v[j] * v[j];
        }
        if (own_scale) {
          float w[VECTOR];
          weight.take(first == of.first ? k : BATCH, i, w);
#pragma unroll
          for (int j = 0; j < VECTOR; j++) {
            largest = fmaxf(largest, fabsf(v[j] * w[j]));
          }
        }
      }
    }
  }
  squares = warp_reduce(squares, [](float a, float c) { return a + c; });
  largest = warp_reduce(largest, [](float a, float c) { return fmaxf(a, c); });
  if (of.step > WARP) {
    if (threadIdx.x % WARP == 0) {
      b.scratch[warp] = squares;
      b.scratch[CREW_WARPS + warp] = largest;
    }
    crew_barrier();
    int warps = of.step / WARP;
    int first = warp / warps * warps;
    squares = 0.0f;
    for (int i = first; i < first + warps; i++) {
      squares += b.scratch[i];
      largest = fmaxf(largest, b.scratch[CREW_WARPS + i]);
    }
  }
  if (busy) {
    float scale = rsqrtf(squares / s.hidden + s.epsilon);
    float divisor = 1.0f;
    if (sizeof(W) == 1) {
      divisor = own_scale ? e4m3_scale(largest * scale) : fixed;
      if (of.first == 0) {
        b.row_scales[of.row] = divisor;
      }
    }
    float inverse = 1.0f / divisor;
    int k = 0;
#pragma unroll 2
    for (int i = of.first; i < vectors; i += of.step, k++) {
      float v[VECTOR], w[VECTOR];
      load8(reinterpret_cast<const bf16 *>(x + place_of<W>(i)), v);
      weight.take(k, i, w);
#pragma unroll
      for (int j = 0; j < VECTOR; j++) {
        v[j] *= scale * w[j];
      }
      keep8<W>(x, i, v, inverse);
    }
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
      float inverse = 1.0f / divisor;
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
