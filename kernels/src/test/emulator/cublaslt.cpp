// The functions of cuBLASLt that the CUDA backend uses, as plain sums, strict about what they are
// given. Types and codes are those of cublasLt.h.

#include <functional>

#include "cuda_fp8.h"

// Of driver.cpp: whether a graph is being recorded, which has this now.
bool record(std::function<void()> work);

namespace {
constexpr int INVALID_VALUE = 7, NOT_SUPPORTED = 15;
constexpr int R_32F = 0, R_16BF = 14, R_8F_E4M3 = 28, COMPUTE_32F = 68;
void *const HANDLE = reinterpret_cast<void *>(11);

struct Operation {
  int transpose_a = 0;
  int8_t fast = 0;
};
struct Layout {
  int type;
  uint64_t rows, columns;
  int64_t stride;
};
struct Preference {
  uint64_t workspace = 0;
  bool any_columns = false;
  unsigned alignment[4] = {256, 256, 256, 256};
};
// The 64 bytes of an algorithm are the library's own.
struct Heuristic {
  uint64_t columns, alignment, rest[6];
  size_t workspace;
  int state;
  float waves;
  int reserved[4];
};
static_assert(sizeof(Heuristic) == 96, "as in cublasLt.h");

float get(const void *p, int type, size_t i) {
  if (type == R_8F_E4M3) {
    return __half2float(
        __half(__nv_cvt_fp8_to_halfraw(static_cast<const uint8_t *>(p)[i], __NV_E4M3)));
  }
  return type == R_16BF ? __bfloat162float(static_cast<const __nv_bfloat16 *>(p)[i])
                        : static_cast<const float *>(p)[i];
}

void multiply(float alpha, const void *a, const Layout &a_layout,
              const void *b, const Layout &b_layout, void *d, const Layout &d_layout) {
  for (uint64_t column = 0; column < d_layout.columns; column++) {
    for (uint64_t row = 0; row < d_layout.rows; row++) {
      float sum = 0;
      for (uint64_t k = 0; k < a_layout.rows; k++) {
        sum += get(a, a_layout.type, row * a_layout.stride + k) *
               get(b, b_layout.type, column * b_layout.stride + k);
      }
      sum *= alpha;
      size_t at = column * d_layout.stride + row;
      if (d_layout.type == R_16BF) {
        static_cast<__nv_bfloat16 *>(d)[at] = __float2bfloat16_rn(sum);
      } else {
        static_cast<float *>(d)[at] = sum;
      }
    }
  }
}

bool aligned(const void *p, uint64_t to) { return reinterpret_cast<uintptr_t>(p) % to == 0; }
} // namespace

extern "C" {
size_t cublasLtGetVersion() { return 130000; }
int cublasLtCreate(void **handle) {
  *handle = HANDLE;
  return 0;
}
int cublasLtDestroy(void *handle) { return handle == HANDLE ? 0 : INVALID_VALUE; }
int cublasLtMatmulDescCreate(Operation **operation, int compute, int scale) {
  *operation = new Operation;
  return compute == COMPUTE_32F && scale == R_32F ? 0 : INVALID_VALUE;
}
int cublasLtMatmulDescDestroy(Operation *operation) {
  delete operation;
  return 0;
}
int cublasLtMatmulDescSetAttribute(Operation *operation, int attribute, const void *value,
                                   size_t bytes) {
  constexpr int TRANSA = 3, FAST_ACCUM = 25;
  auto set = [&](auto &field) {
    memcpy(&field, value, sizeof field);
    return bytes == sizeof field ? 0 : INVALID_VALUE;
  };
  switch (attribute) {
  case TRANSA:
    return set(operation->transpose_a);
  case FAST_ACCUM:
    return set(operation->fast);
  default:
    return INVALID_VALUE;
  }
}
int cublasLtMatrixLayoutCreate(Layout **layout, int type, uint64_t rows, uint64_t columns,
                               int64_t stride) {
  *layout = new Layout{type, rows, columns, stride};
  return stride >= static_cast<int64_t>(rows) ? 0 : INVALID_VALUE;
}
int cublasLtMatrixLayoutDestroy(Layout *layout) {
  delete layout;
  return 0;
}
int cublasLtMatrixLayoutSetAttribute(Layout *layout, int attribute, const void *value,
                                     size_t bytes) {
  constexpr int COLS = 3;
  if (attribute != COLS || bytes != 8) {
    return INVALID_VALUE;
  }
  layout->columns = *static_cast<const uint64_t *>(value);
  return 0;
}
int cublasLtMatmulPreferenceCreate(Preference **preference) {
  *preference = new Preference;
  return 0;
}
int cublasLtMatmulPreferenceDestroy(Preference *preference) {
  delete preference;
  return 0;
}
int cublasLtMatmulPreferenceSetAttribute(Preference *preference, int attribute, const void *value,
                                         size_t bytes) {
  constexpr int MAX_WORKSPACE_BYTES = 1, REDUCTION_SCHEME_MASK = 3, MIN_ALIGNMENT_A_BYTES = 5;
  if (attribute == MAX_WORKSPACE_BYTES && bytes == 8) {
    preference->workspace = *static_cast<const uint64_t *>(value);
    return 0;
  }
  if (attribute == REDUCTION_SCHEME_MASK && bytes == 4) {
    preference->any_columns = *static_cast<const unsigned *>(value) == 0;
    return 0;
  }
  int matrix = attribute - MIN_ALIGNMENT_A_BYTES;
  if (matrix < 0 || matrix > 3 || bytes != 4) {
    return INVALID_VALUE;
  }
  preference->alignment[matrix] = *static_cast<const unsigned *>(value);
  return 0;
}
int cublasLtMatmulAlgoGetHeuristic(void *handle, Operation *, Layout *, Layout *b, Layout *c,
                                   Layout *d, Preference *preference, int wanted, Heuristic *found,
                                   int *count) {
  if (handle != HANDLE || wanted < 1 || c != d) {
    return INVALID_VALUE;
  }
  *found = {};
  // Those that split nothing do for any number of columns.
  found->columns = preference->any_columns ? UINT64_MAX : b->columns;
  found->alignment = preference->alignment[0];
  *count = 1;
  return 0;
}
// An algorithm does for fewer columns too.
int cublasLtMatmulAlgoCheck(void *handle, Operation *, Layout *, Layout *b, Layout *, Layout *,
                            const Heuristic *algorithm, Heuristic *result) {
  *result = {};
  memcpy(result, algorithm, 64); // what a caller may have kept of it
  return handle == HANDLE && b->columns <= algorithm->columns ? 0 : NOT_SUPPORTED;
}
int cublasLtMatmul(void *handle, Operation *operation, const float *alpha, const void *a,
                   Layout *a_layout, const void *b, Layout *b_layout, const float *beta,
                   const void *c, Layout *, void *d, Layout *d_layout, const Heuristic *algorithm,
                   void *workspace, size_t, void *) {
  if (handle != HANDLE || *beta != 0 || c != d || operation->transpose_a != 1 ||
      workspace == nullptr || a_layout->rows != b_layout->rows ||
      a_layout->columns != d_layout->rows || b_layout->columns != d_layout->columns) {
    return INVALID_VALUE;
  }
  if (algorithm->columns < b_layout->columns || !aligned(a, algorithm->alignment) ||
      !aligned(b, algorithm->alignment) || !aligned(d, algorithm->alignment)) {
    return NOT_SUPPORTED;
  }
  auto product = [=, alpha = *alpha, a_layout = *a_layout, b_layout = *b_layout,
                  d_layout = *d_layout] {
    multiply(alpha, a, a_layout, b, b_layout, d, d_layout);
  };
  if (a_layout->type == R_8F_E4M3) {
    if (b_layout->type != R_8F_E4M3 || a_layout->rows % 16 || a_layout->columns % 16 ||
        !aligned(a, 16) || !aligned(b, 16) || !aligned(d, 16) || b_layout->stride % 16) {
      return NOT_SUPPORTED;
    }
  } else if (operation->fast || b_layout->type != R_16BF) {
    return INVALID_VALUE;
  }
  if (!record(product)) {
    product();
  }
  return 0;
}
}
