// Elementwise kernels over rows whose beginnings lie a stride apart.
//
// Grids are [columns in stretches of 256 vectors][rows, or fewer and each takes several].

#include "element.cuh"
#include "overlap.cuh"

// Calls vector(i) for whole vectors that begin at column i, or element(i) for single columns.
template <typename Vector, typename Element>
__device__ __forceinline__ void columns(int width, bool aligned, Vector vector, Element element) {
  int at = blockIdx.x * blockDim.x + threadIdx.x;
  if (aligned) {
    if (at < width / VECTOR) {
      vector(at * VECTOR);
    }
  } else {
    for (int i = at * VECTOR; i < width && i < (at + 1) * VECTOR; i++) {
      element(i);
    }
  }
}

// out = silu(gate) * up; silu(v) = v / (1 + exp(-v)). out may be gate or up.
extern "C" __global__ void silu_mul(const bf16 *gate, const bf16 *up, bf16 *out, int rows, int width,
                                    int gate_stride, int up_stride, int out_stride, int aligned) {
  admit_next();
  await_previous();
  for (int row = blockIdx.y; row < rows; row += gridDim.y) {
    const bf16 *g = gate + static_cast<size_t>(row) * gate_stride;
    const bf16 *u = up + static_cast<size_t>(row) * up_stride;
    bf16 *o = out + static_cast<size_t>(row) * out_stride;
    columns(
        width, aligned,
        [=](int i) {
          float a[VECTOR], b[VECTOR];
          load8(g + i, a);
          load8(u + i, b);
#pragma unroll
          for (int j = 0; j < VECTOR; j++) {
            a[j] = silu(a[j]) * b[j];
          }
          store8(o + i, a);
        },
        [=](int i) { store(o, i, silu(load(g, i)) * load(u, i)); });
  }
}

// x += y.
extern "C" __global__ void add(bf16 *x, const bf16 *y, int rows, int width, int aligned) {
  admit_next();
  await_previous();
  for (int row = blockIdx.y; row < rows; row += gridDim.y) {
    bf16 *a = x + static_cast<size_t>(row) * width;
    const bf16 *b = y + static_cast<size_t>(row) * width;
    columns(
        width, aligned,
        [=](int i) {
          float v[VECTOR], w[VECTOR];
          load8(a + i, v);
          load8(b + i, w);
#pragma unroll
          for (int j = 0; j < VECTOR; j++) {
            v[j] += w[j];
          }
          store8(a + i, v);
        },
        [=](int i) { store(a, i, load(a, i) + load(b, i)); });
  }
}

// x[row] += bias, which every row gets.
extern "C" __global__ void add_bias(bf16 *x, const float *bias, int rows, int width, int stride) {
  admit_next();
  await_previous();
  for (int row = blockIdx.y; row < rows; row += gridDim.y) {
    bf16 *a = x + static_cast<size_t>(row) * stride;
    columns(
        width, false, [](int) {}, [=](int i) { store(a, i, load(a, i) + bias[i]); });
  }
}

// out[row] = x[from[row]].
extern "C" __global__ void gather_rows(const bf16 *x, const int *from, bf16 *out, int rows,
                                       int width, int aligned) {
  admit_next();
  await_previous();
  for (int row = blockIdx.y; row < rows; row += gridDim.y) {
    const bf16 *a = x + static_cast<size_t>(from[row]) * width;
    bf16 *o = out + static_cast<size_t>(row) * width;
    columns(
        width, aligned,
        [=](int i) { *reinterpret_cast<uint4 *>(o + i) = *reinterpret_cast<const uint4 *>(a + i); },
        [=](int i) { o[i] = a[i]; });
  }
}
